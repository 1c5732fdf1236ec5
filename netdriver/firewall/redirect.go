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
// 53 again. It may be called again, with other ports.
//
// Ports are rewritten both ways without connection tracking: a NAT rule would make the kernel track every connection of
// the container's, which costs each of its packets, and tables that fill up.
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
	// What the container's own processes and the resolver send passes output only; nothing from elsewhere is for 127.0.0.11.
	// Should the container's own rules track connections (which happens at -200), they see port 53 at both ends.
	queries := c.AddChain(&nftables.Chain{Name: "queries", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityMangle})
	answers := c.AddChain(&nftables.Chain{Name: "answers", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityRaw})
	v4 := families[0]
	for _, p := range []struct {
		proto byte
		port  uint16
		sum   uint32 // where the protocol's header has its checksum (RFC 768, RFC 9293)
	}{{unix.IPPROTO_UDP, udp, 6}, {unix.IPPROTO_TCP, tcp, 16}} {
		if p.port != 0 {
			c.AddRule(&nftables.Rule{Table: t, Chain: queries, Exprs: setPort(v4.dst, p.proto, destinationPort, dnsPort, p.port, p.sum)})
			c.AddRule(&nftables.Rule{Table: t, Chain: answers, Exprs: setPort(v4.src, p.proto, sourcePort, p.port, dnsPort, p.sum)})
		}
	}
}

// dnsPort is where resolvers are asked (RFC 1035 section 4.2).
const dnsPort = 53

// Where TCP's and UDP's headers have their ports.
const sourcePort, destinationPort = 0, 2

// setPort rewrites a port of packets with the resolver's address at an offset of the IP header.
func setPort(address uint32, proto byte, at uint32, from, to uint16, sum uint32) []expr.Any {
	return []expr.Any{
		families[0].load(address, reg1), equals(resolverAddr.AsSlice()...),
		meta(expr.MetaKeyL4PROTO, reg1), equals(proto),
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: at, Len: 2}, equals(bePort(from)...),
		&expr.Immediate{Register: reg1, Data: bePort(to)},
		&expr.Payload{OperationType: expr.PayloadWrite, SourceRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: at, Len: 2,
			CsumType: expr.CsumTypeInet, CsumOffset: sum},
	}
}
