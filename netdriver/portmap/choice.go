package portmap

import (
	"bytes"
	"fmt"
	"iter"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// The kernel's own settings, of the network namespace of the thread that reads them.
const (
	localRangePath = "/proc/sys/net/ipv4/ip_local_port_range"
	reservedPath   = "/proc/sys/net/ipv4/ip_local_reserved_ports"
)

// candidates gives the ports to try for r, in order.
func (a *Allocator) candidates(r Request) (iter.Seq[uint16], error) {
	switch r.Proto {
	case "tcp", "udp", "sctp":
	default:
		return nil, fmt.Errorf("publish port %d: unknown protocol %q, use tcp, udp or sctp: %w", r.ContainerPort, r.Proto,
			errdefs.ErrInvalidArgument)
	}
	if r.First == 0 && r.Last == 0 {
		return a.localRange(r.Proto), nil
	}
	if r.First == 0 || r.First > r.Last {
		return nil, fmt.Errorf("publish port %d: invalid host port range %d-%d: %w", r.ContainerPort, r.First, r.Last,
			errdefs.ErrInvalidArgument)
	}
	return cycle(r.First, r.Last, r.First, nil), nil
}

// localRange gives the ports of the local range once, beginning after the one given last: a port just freed is the
// last to come again, so that clients of the one before do not meet a stranger.
func (a *Allocator) localRange(proto string) iter.Seq[uint16] {
	rangeText, _ := os.ReadFile(localRangePath)
	first, last := parseRange(rangeText)
	reservedText, _ := os.ReadFile(reservedPath)
	start := first
	if l := a.last[proto]; l >= first && l < last {
		start = l + 1
	}
	return cycle(first, last, start, parseReserved(reservedText))
}

// recall takes a restored port of the local range for the one given last, unless a later one is.
func (a *Allocator) recall(proto string, port uint16) {
	rangeText, _ := os.ReadFile(localRangePath)
	if first, last := parseRange(rangeText); first <= port && port <= last {
		a.last[proto] = max(a.last[proto], port)
	}
}

// cycle gives first to last once, beginning at start.
func cycle(first, last, start uint16, skip func(uint16) bool) iter.Seq[uint16] {
	return func(yield func(uint16) bool) {
		n := int(last) - int(first) + 1
		for i := range n {
			p := uint16(int(first) + (int(start)-int(first)+i)%n)
			if (skip == nil || !skip(p)) && !yield(p) {
				return
			}
		}
	}
}

// parseRange reads ip_local_port_range; what it cannot read is the kernel's default.
func parseRange(b []byte) (first, last uint16) {
	if f := bytes.Fields(b); len(f) == 2 {
		lo, err1 := strconv.ParseUint(string(f[0]), 10, 16)
		hi, err2 := strconv.ParseUint(string(f[1]), 10, 16)
		if err1 == nil && err2 == nil && lo > 0 && lo <= hi {
			return uint16(lo), uint16(hi)
		}
	}
	return 32768, 60999
}

// parseReserved reads ip_local_reserved_ports: ports and ranges with commas between, such as "8080,9148-9150".
func parseReserved(b []byte) func(uint16) bool {
	type span struct{ lo, hi uint64 }
	var spans []span
	for part := range strings.SplitSeq(strings.TrimSpace(string(b)), ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		lo, err1 := strconv.ParseUint(from, 10, 16)
		hi, err2 := strconv.ParseUint(to, 10, 16)
		if err1 == nil && err2 == nil {
			spans = append(spans, span{lo, hi})
		}
	}
	return func(p uint16) bool {
		for _, s := range spans {
			if uint64(p) >= s.lo && uint64(p) <= s.hi {
				return true
			}
		}
		return false
	}
}
