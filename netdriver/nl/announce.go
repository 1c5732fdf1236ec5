package nl

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Announce broadcasts an unsolicited ARP request (RFC 5227 section 3) for each row out of a device of the Conn's
// namespace: whoever remembers another MAC for the address takes the new one. IPv6 addresses are passed over:
// neighbours probe theirs. Closing the packet socket waits for an RCU grace period, some ten milliseconds.
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
			if !r.Address.Is4() {
				continue
			}
			if err := unix.Sendto(fd, arpFrame(r.Address, r.MAC), 0, to); err != nil {
				return fmt.Errorf("announce %s: %w", r.Address, err)
			}
		}
		return nil
	})
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
