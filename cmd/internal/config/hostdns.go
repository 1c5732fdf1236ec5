package config

import (
	"fmt"
	"net/netip"
)

// hostDNS reads --host-dns: an address of this host alone, port 53 unless it says another.
func hostDNS(text string) (string, error) {
	at, err := netip.ParseAddrPort(text)
	if err != nil {
		var a netip.Addr
		a, err = netip.ParseAddr(text)
		at = netip.AddrPortFrom(a, 53)
	}
	if err != nil || !at.Addr().IsLoopback() || at.Port() == 0 {
		return "", fmt.Errorf("--host-dns %q: want a loopback address, such as 127.0.0.153 or 127.0.0.153:5353", text)
	}
	return at.String(), nil
}
