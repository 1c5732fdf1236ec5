package firewall

import (
	"context"
	"fmt"
	"net/netip"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// dnsTable is the one table of ours in a container's namespace.
const dnsTable = "minictl_dns"

// resolverAddr is where containers look for their resolver; docker's users and images know it.
var resolverAddr = netip.AddrFrom4([4]byte{127, 0, 0, 11})

// RedirectDNS makes 127.0.0.11:53 of the network namespace at nsPath lead to the given ports of 127.0.0.11 there. The
// resolver listens on ports of the kernel's choice, because port 53 may be the container's own. Answers come from port
// 53 again: connection tracking rewrites them back. It may be called again, with other ports.
func RedirectDNS(ctx context.Context, nsPath string, udp, tcp uint16) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ns, err := os.Open(nsPath)
	if err != nil {
		return fmt.Errorf("redirect DNS: %w", err)
	}
	defer ns.Close()
	c, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(int(ns.Fd())))
	if err != nil {
		return fmt.Errorf("redirect DNS in %s: %w", nsPath, err)
	}
	// Closing waits for a grace period of the kernel, up to 30 ms, which the caller's container should not wait for.
	defer func() { go func() { _ = c.CloseLasting() }() }()
	queueRedirect(c, udp, tcp)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("redirect DNS in %s: %w", nsPath, err)
	}
	return nil
}

func queueRedirect(c *nftables.Conn, udp, tcp uint16) {
	t := &nftables.Table{Name: dnsTable, Family: nftables.TableFamilyIPv4}
	c.AddTable(t)
	c.DelTable(t)
	c.AddTable(t)
	// Queries of the container's own processes pass output only; nothing from elsewhere is for 127.0.0.11.
	out := c.AddChain(&nftables.Chain{Name: "output", Table: t, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest})
	for _, r := range []struct {
		proto byte
		to    uint16
	}{{unix.IPPROTO_UDP, udp}, {unix.IPPROTO_TCP, tcp}} {
		if r.to != 0 {
			c.AddRule(&nftables.Rule{Table: t, Chain: out, Exprs: redirectRule(r.proto, r.to)})
		}
	}
}

func redirectRule(proto byte, to uint16) []expr.Any {
	v4 := families[0]
	return []expr.Any{
		v4.load(v4.dst, reg1), equals(resolverAddr.AsSlice()...),
		meta(expr.MetaKeyL4PROTO, reg1), equals(proto),
		loadPort(reg1), equals(bePort(53)...),
		&expr.Immediate{Register: reg1, Data: resolverAddr.AsSlice()},
		&expr.Immediate{Register: reg1 + 1, Data: bePort(to)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg1, RegProtoMin: reg1 + 1},
	}
}
