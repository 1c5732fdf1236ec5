package portmap

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	udpIdle     = 90 * time.Second // after which a client is forgotten, as docker's proxy does
	maxClients  = 1024             // of one port at a time; more are not heard
	maxDatagram = 65535            // bytes
	perTurn     = 32               // datagrams of one port before others have their turn
)

// udpClient is who asks, and at which of the host's addresses.
type udpClient struct {
	addr netip.AddrPort
	zone uint32 // of a link-local address
	at   unix.Inet6Pktinfo
}

// udpFlow is one client's way to the container.
type udpFlow struct{ conn net.Conn }

// takeDatagrams sends on what has arrived at a door. The lock is held.
func (r *relay) takeDatagrams(d *door) {
	buf, oob := make([]byte, maxDatagram), make([]byte, 128)
	for range perTurn {
		n, noob, _, from, err := unix.Recvmsg(int(d.sock), buf, oob, unix.MSG_DONTWAIT)
		if err != nil {
			return
		}
		a, ok := from.(*unix.SockaddrInet6)
		if !ok || netip.AddrFrom16(a.Addr).Is4In6() {
			continue // as with connections
		}
		client := udpClient{addr: netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)), zone: a.ZoneId, at: askedAt(oob[:noob])}
		flow := d.udp[client]
		if flow == nil {
			if flow = r.newFlow(d, client); flow == nil {
				continue
			}
		}
		_ = flow.conn.SetReadDeadline(time.Now().Add(udpIdle))
		_, _ = flow.conn.Write(buf[:n]) // a datagram may be lost
	}
}

// askedAt reads the address that a datagram was sent to (RFC 3542 section 6).
func askedAt(oob []byte) (at unix.Inet6Pktinfo) {
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return at
	}
	for _, m := range list {
		if m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo {
			copy(at.Addr[:], m.Data)
		}
	}
	return at
}

// refused tells that nobody has the container's port just now (an ICMP message said so).
func refused(err error) bool { return errors.Is(err, unix.ECONNREFUSED) }

// newFlow makes a client's way; nil if there is none. The lock is held.
func (r *relay) newFlow(d *door, client udpClient) *udpFlow {
	if len(d.udp) >= maxClients {
		return nil
	}
	conn, err := net.Dial("udp", d.to.String()) // nothing is sent: it returns at once
	if err != nil {
		return nil
	}
	f := &udpFlow{conn: conn}
	if d.udp == nil {
		d.udp = map[udpClient]*udpFlow{}
	}
	d.udp[client], d.open[conn] = f, true
	go r.answer(d, client, f)
	return f
}

// answer sends a container's datagrams back to a client, until neither has said anything for a while.
func (r *relay) answer(d *door, client udpClient, f *udpFlow) {
	buf := make([]byte, maxDatagram)
	for {
		n, err := f.conn.Read(buf)
		if err != nil && !refused(err) {
			break
		}
		if err != nil {
			continue // the container's port was closed for the moment
		}
		_ = f.conn.SetReadDeadline(time.Now().Add(udpIdle))
		r.mu.Lock()
		if r.doors[d.sock] == d {
			to := &unix.SockaddrInet6{Port: int(client.addr.Port()), Addr: client.addr.Addr().As16(), ZoneId: client.zone}
			_, _ = unix.SendmsgN(int(d.sock), buf[:n], unix.PktInfo6(&client.at), to, unix.MSG_DONTWAIT)
		}
		r.mu.Unlock()
	}
	r.mu.Lock()
	if d.udp[client] == f {
		delete(d.udp, client)
	}
	r.mu.Unlock()
	r.forget(d, f.conn)
}
