package firewall

import (
	"context"

	"github.com/minictl/minictl/netdriver/nl"
)

// flushUDP forgets the tracked UDP streams that the changed ports concern.
func flushUDP(ctx context.Context, changed []Port) error {
	_, err := nl.DeleteFlows(ctx, func(f nl.Flow) bool { return staleUDP(f, changed) })
	return err
}

// staleUDP tells whether a tracked stream was judged by rules that no longer hold: it is addressed to a changed port of
// the host and either was translated to some container, or was not and would be now. A stream that merely passes the
// host, whose source alone was rewritten, is somebody else's and stays.
func staleUDP(f nl.Flow, changed []Port) bool {
	if f.Proto != protocols["udp"] {
		return false
	}
	passing := f.Reply.Src == f.Orig.Dst && f.Reply.Dst != f.Orig.Src
	for _, p := range changed {
		k, err := p.key()
		if err != nil || f.Orig.Dst.Port() != k.port || f.Orig.Dst.Addr().Is4() != k.is4 {
			continue
		}
		if (!k.ip.IsValid() || k.ip == f.Orig.Dst.Addr()) && !passing {
			return true
		}
	}
	return false
}
