package nl

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Announce sends an unsolicited ARP request (RFC 5227 section 3), or neighbour advertisement (RFC 4861 section 7.2.6),
// for each row to everybody behind a device of the Conn's namespace: whoever remembers another MAC for the address takes
// the new one. Closing the packet socket waits for an RCU grace period, some ten milliseconds.
func (c *Conn) Announce(index int, rows []Row) error {
	if len(rows) == 0 {
		return nil
	}
	return c.Do(func() error {
		// Protocol 0: the socket sends only, no frame is queued on it.
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("announce addresses: open packet socket: %w", err)
		}
		defer unix.Close(fd)
		to := &unix.SockaddrLinklayer{Ifindex: index, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
		for _, r := range rows {
			frame := arpFrame
			if r.Address.Is6() {
				frame = advertisement
			}
			if err := unix.Sendto(fd, frame(r.Address, r.MAC), 0, to); err != nil {
				return fmt.Errorf("announce %s: %w", r.Address, err)
			}
		}
		return nil
	})
}

// advertisement is an Ethernet frame with an unsolicited neighbour advertisement (RFC 4861 section 4.4) to all nodes that
// overrides what they remember.
func advertisement(addr netip.Addr, mac HardwareAddr) []byte {
	const hopLimit, override, targetLink = 255, 0x20, 2
	ip, all := addr.As16(), netip.IPv6LinkLocalAllNodes().As16()
	icmp := append([]byte{136, 0, 0, 0, override, 0, 0, 0}, ip[:]...)
	icmp = append(append(icmp, targetLink, 1), mac[:]...)
	binary.BigEndian.PutUint16(icmp[2:], checksum(ip, all, icmp))
	f := append([]byte{0x33, 0x33}, all[12:]...) // RFC 2464 section 7
	f = append(f, mac[:]...)
	f = binary.BigEndian.AppendUint16(f, unix.ETH_P_IPV6)
	f = append(f, 0x60, 0, 0, 0)
	f = binary.BigEndian.AppendUint16(f, uint16(len(icmp)))
	f = append(f, unix.IPPROTO_ICMPV6, hopLimit)
	f = append(append(f, ip[:]...), all[:]...)
	return append(f, icmp...)
}

// checksum is the one of RFC 4443 section 2.3, over the pseudo-header of RFC 8200 section 8.1 and an ICMPv6 message of even length.
func checksum(src, dst [16]byte, icmp []byte) uint16 {
	sum := uint32(len(icmp)) + unix.IPPROTO_ICMPV6
	for _, part := range [][]byte{src[:], dst[:], icmp} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// arpFrame is an Ethernet frame with an ARP request (RFC 826) whose sender and target address are the same.
func arpFrame(addr netip.Addr, mac HardwareAddr) []byte {
	ip := addr.As4()
	f := make([]byte, 0, 42)
	f = append(f, 255, 255, 255, 255, 255, 255)
	f = append(f, mac[:]...)
	f = binary.BigEndian.AppendUint16(f, unix.ETH_P_ARP)
	f = binary.BigEndian.AppendUint16(f, 1) // Ethernet
	f = binary.BigEndian.AppendUint16(f, unix.ETH_P_IP)
	f = append(f, 6, 4)                     // address lengths
	f = binary.BigEndian.AppendUint16(f, 1) // request
	f = append(f, mac[:]...)
	f = append(f, ip[:]...)
	f = append(f, 0, 0, 0, 0, 0, 0)
	return append(f, ip[:]...)
}
