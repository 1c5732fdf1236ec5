package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Subnet is the underlay's; Gateway is its first address, where DNS is answered.
const (
	Subnet  = "192.168.66.0/24"
	Gateway = "192.168.66.1"

	gatewayMAC = "02:00:c0:a8:42:01"
)

// underlay is the switch between the hosts: a bridge in a namespace of its own, and the faults put on it.
type underlay struct {
	*holder
	faults []string // nft rules of the bridge's forward chain
	parted map[[2]string]bool
}

func startUnderlay(l *Lab) (*underlay, error) {
	h, err := startHolder(roleUnderlay, struct{}{}, filepath.Join(l.dir, "underlay.log"), unix.CLONE_NEWNET)
	if err != nil {
		return nil, err
	}
	u := &underlay{holder: h, parted: map[[2]string]bool{}}
	// mcast_snooping off: a switch without a querier would swallow IPv6's neighbour discovery. An address of its own: a bridge
	// without one takes that of a port, and another when a host boots, to which no host sends until it has asked anew.
	script := `link set lo up
link add ul0 address ` + gatewayMAC + ` type bridge stp_state 0 forward_delay 0 mcast_snooping 0
addr add ` + Gateway + `/24 dev ul0
link set ul0 up
`
	err = errors.Join(runIn(u.pid(), netOnly, script, "ip", "-batch", "-"), within(u.pid(), netOnly, plainSwitch))
	if err == nil {
		err = u.call("serve " + Gateway + ":53")
	}
	if err != nil {
		return nil, errors.Join(err, u.stop())
	}
	return u, nil
}

// plainSwitch keeps br_netfilter, on by default where it is built in, from sending frames through IP rules.
func plainSwitch() error {
	files, err := filepath.Glob("/proc/sys/net/bridge/bridge-nf-call-*")
	for _, f := range files {
		err = errors.Join(err, os.WriteFile(f, []byte("0"), 0o644))
	}
	return err
}

// plug lays a cable from a host's eth0 to a port named after it.
func (u *underlay) plug(h *Host) error {
	add := fmt.Sprintf("link add name %s type veth peer name eth0 netns %d\nlink set dev %s master ul0 up\n", h.name, h.pid(), h.name)
	if err := runIn(u.pid(), netOnly, add, "ip", "-batch", "-"); err != nil {
		return err
	}
	// No IPv6 address by itself: it would come up a second or two later, between one listing and the next.
	up := fmt.Sprintf("link set lo up\nlink set eth0 addrgenmode none\naddr add %s/24 dev eth0\nlink set eth0 up\nroute add default via %s\n", h.addr, Gateway)
	// A host is as most machines are, where br_netfilter is a module that nobody has loaded.
	if err := errors.Join(runIn(h.pid(), netOnly, up, "ip", "-batch", "-"), within(h.pid(), netOnly, plainSwitch)); err != nil {
		return err
	}
	// The kernel notices a moment later that both ends are up; a listing before that would differ from all others.
	return poll(patience, func() error { return within(h.pid(), netOnly, func() error { return running("eth0") }) })
}

// running reports an error while a link of the thread's network namespace has no carrier (netdevice(7)).
func running(link string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(link)
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err != nil {
		return fmt.Errorf("flags of %s: %w", link, err)
	}
	if req.Uint16()&unix.IFF_RUNNING == 0 {
		return fmt.Errorf("link %s has no carrier", link)
	}
	return nil
}

// Name makes the underlay's DNS server answer a name with an address; every other name does not exist (NXDOMAIN).
func (l *Lab) Name(name string, addr netip.Addr) {
	l.tb.Helper()
	if err := l.underlay.call("name " + name + " " + addr.String()); err != nil {
		l.tb.Fatalf("lab: %v", err)
	}
}

// Partition stops every frame between two hosts, both ways, until Heal.
func (l *Lab) Partition(a, b *Host) {
	l.tb.Helper()
	l.underlay.parted[pair(a, b)] = true
	l.applyFaults()
}

// Isolate parts a host from every other host made so far; it still reaches the underlay's own address.
func (l *Lab) Isolate(h *Host) {
	l.tb.Helper()
	for _, other := range l.hosts {
		if other != h {
			l.underlay.parted[pair(h, other)] = true
		}
	}
	l.applyFaults()
}

// Heal ends the partition of two hosts; HealAll ends every fault on the underlay.
func (l *Lab) Heal(a, b *Host) {
	l.tb.Helper()
	delete(l.underlay.parted, pair(a, b))
	l.applyFaults()
}

// HealAll takes away every partition, drop and loss.
func (l *Lab) HealAll() {
	l.tb.Helper()
	clear(l.underlay.parted)
	l.underlay.faults = nil
	l.applyFaults()
}

// Drop swallows what comes from or goes to a host on a destination port: Drop(h, "udp", 4789) is the firewall that
// somebody forgot to open.
func (l *Lab) Drop(h *Host, proto string, port uint16) {
	l.tb.Helper()
	for _, dir := range []string{"iifname", "oifname"} {
		l.underlay.faults = append(l.underlay.faults, fmt.Sprintf("%s %q %s dport %d drop", dir, h.name, proto, port))
	}
	l.applyFaults()
}

// Loss drops the given part, in percent, of the frames that go to a host.
func (l *Lab) Loss(h *Host, percent int) {
	l.tb.Helper()
	rule := fmt.Sprintf("oifname %q drop", h.name)
	if percent < 100 { // nft refuses a comparison that is always true
		rule = fmt.Sprintf("oifname %q numgen random mod 100 < %d drop", h.name, percent)
	}
	l.underlay.faults = append(l.underlay.faults, rule)
	l.applyFaults()
}

// Mute swallows every frame from one host to another and lets the other direction through, until HealAll.
func (l *Lab) Mute(from, to *Host) {
	l.tb.Helper()
	l.underlay.faults = append(l.underlay.faults, fmt.Sprintf("iifname %q oifname %q drop", from.name, to.name))
	l.applyFaults()
}

// Unplug takes the cable out of a host's port (the host sees no carrier); Plug puts it back.
func (l *Lab) Unplug(h *Host) { l.tb.Helper(); l.port(h, "down") }

// Plug puts the cable back.
func (l *Lab) Plug(h *Host) { l.tb.Helper(); l.port(h, "up") }

func (l *Lab) port(h *Host, state string) {
	l.tb.Helper()
	if err := runIn(l.underlay.pid(), netOnly, "", "ip", "link", "set", "dev", h.name, state); err != nil {
		l.tb.Fatalf("lab: %v", err)
	}
}

func pair(a, b *Host) [2]string {
	if a.name > b.name {
		a, b = b, a
	}
	return [2]string{a.name, b.name}
}

// applyFaults writes the whole table in one transaction.
func (l *Lab) applyFaults() {
	l.tb.Helper()
	if err := runIn(l.underlay.pid(), netOnly, faultTable(l.underlay.parted, l.underlay.faults), "nft", "-f", "-"); err != nil {
		l.tb.Fatalf("lab: set faults: %v", err)
	}
}

// faultTable is the nft text of the faults. The first line makes the delete that follows succeed always.
func faultTable(parted map[[2]string]bool, faults []string) string {
	rules := slices.Clone(faults)
	for p := range parted {
		rules = append(rules,
			fmt.Sprintf("iifname %q oifname %q drop", p[0], p[1]),
			fmt.Sprintf("iifname %q oifname %q drop", p[1], p[0]))
	}
	slices.Sort(rules) // a map's order is no order
	var b strings.Builder
	b.WriteString("table bridge lab\ndelete table bridge lab\n")
	if len(rules) == 0 {
		return b.String()
	}
	b.WriteString("table bridge lab {\n\tchain forward {\n\t\ttype filter hook forward priority 0;\n")
	for _, r := range rules {
		b.WriteString("\t\t" + r + "\n")
	}
	b.WriteString("\t}\n}\n")
	return b.String()
}
