package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/minictl/minictl/testing/bench/probe"
	"github.com/minictl/minictl/testing/lab"
)

// What the project wants to reach on the network.
const (
	ratioData        = 1    // of docker's figure on the same path
	ratioHandMade    = 0.97 // of a hand-made VXLAN's TCP and UDP
	ratioDNS         = 2    // of docker's queries a second
	targetPublish    = 1000 // ms to publish publishPorts
	targetPublishMem = 20   // MB for them
	publishPorts     = 10000
)

const (
	netRepeats = 3
	netSeconds = "1"
	probeBin   = "/probe"
)

// path is a way from a client to a server: on hosts, or between containers.
type path struct {
	what   string
	theirs *path // docker's same way; nil: there is none to compare with
	target string
	client func(args ...string) (string, error)
	values map[string]sample
}

// metric is what is measured on every path.
type metric struct {
	kind, what, format string
	more               bool
}

func metrics() []metric {
	return []metric{
		{"tcp1", "TCP, one stream", "%.2f Gbit/s", true}, {"tcp4", "TCP, four streams", "%.2f Gbit/s", true},
		{"udp", "UDP of 64 bytes, arriving", "%.0f /s", true}, {"rr", "a byte there and back", "%.1f µs", false},
		{"conns", "new connections", "%.0f /s", true},
	}
}

// network measures the data path. All paths take turns with all metrics, so that a passing load hits all of them alike.
func (b *bench) network() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	all, err := b.engines()
	if err != nil {
		return err
	}
	for _, h := range []*lab.Host{b.h1, b.h2} {
		h.Start(self, "probe", "serve")
	}
	paths := []*path{{what: "host to host", target: b.h2.Addr().String(), client: onHost(b.h1, self)}}
	hand, err := b.handMade(self)
	if err != nil {
		return fmt.Errorf("hand-made VXLAN: %w", err)
	}
	paths = append(paths, hand)
	var ways [2][]*path
	for i := range all {
		second, err := minictl(b.h2)
		if all[i].name != ourName {
			second, err = b.dockerSecond.client, nil
		}
		if err == nil {
			ways[i], err = b.ways(&all[i], second, self)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", all[i].name, err)
		}
	}
	for i, p := range ways[0] {
		if ways[1] != nil {
			p.theirs = ways[1][i]
			paths = append(paths, p.theirs)
		}
		paths = append(paths, p)
	}
	for range netRepeats {
		for _, m := range metrics() {
			for _, p := range paths {
				if err := p.measure(m.kind); err != nil {
					return fmt.Errorf("%s, %s: %w", p.what, m.what, err)
				}
			}
		}
	}
	for _, m := range metrics() {
		for _, p := range append(paths[:2:2], ways[0]...) {
			f := figure{what: m.what + ", " + p.what, values: p.values[m.kind], format: m.format, more: m.more}
			if p.theirs != nil {
				f.peer, f.ratio = p.theirs.values[m.kind], ratioData
			}
			if p == ways[0][0] && m.more && m.kind != "conns" {
				f.target = ratioHandMade * hand.values[m.kind].median()
			}
			b.table.add(f)
		}
	}
	if err := b.dns(all); err != nil {
		return err
	}
	return b.publish()
}

func (p *path) measure(kind string) error {
	out, err := p.client(kind, p.target, netSeconds)
	if err != nil {
		return err
	}
	v, err := strconv.ParseFloat(strings.TrimSpace(out), 64)
	if err != nil {
		return fmt.Errorf("%q: %w", out, err)
	}
	if p.values == nil {
		p.values = map[string]sample{}
	}
	p.values[kind] = append(p.values[kind], v)
	return nil
}

// onHost runs the client as a program of a host, behind a prefix such as "ip netns exec NAME".
func onHost(h *lab.Host, self string, prefix ...string) func(args ...string) (string, error) {
	return func(args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		out, errOut, code := h.Run(ctx, append(append(prefix, self, "probe"), args...)...)
		if code != 0 {
			return "", fmt.Errorf("exit %d: %s", code, errOut)
		}
		return out, nil
	}
}

// handMade is a bridge and a VXLAN device on each host as ip(8) makes them, with all that is known written down and no
// rules: what the kernel gives at best in this shape.
func (b *bench) handMade(self string) (*path, error) {
	for i, h := range []*lab.Host{b.h1, b.h2} {
		other := []*lab.Host{b.h2, b.h1}[i]
		mac, otherMAC := fmt.Sprintf("02:99:00:00:00:0%d", i+1), fmt.Sprintf("02:99:00:00:00:0%d", 2-i)
		for _, c := range []string{
			"ip netns add hand", "ip netns add handbox", "ip -n hand link add br0 type bridge", "ip -n hand link set br0 up",
			"ip link add hand0 type vxlan id 9999 dstport 4788 local " + h.Addr().String() + " nolearning", "ip link set hand0 netns hand",
			"ip -n hand link set hand0 mtu 1450 master br0 up", "bridge -n hand fdb replace " + otherMAC + " dev hand0 dst " + other.Addr().String() + " self permanent",
			"ip -n hand link add port type veth peer name eth0 netns handbox", "ip -n hand link set port mtu 1450 master br0 up",
			"ip -n handbox link set eth0 mtu 1450 address " + mac, fmt.Sprintf("ip -n handbox addr add 10.99.0.%d/24 dev eth0", i+1), "ip -n handbox link set eth0 up",
			"ip -n handbox link set lo up", fmt.Sprintf("ip -n handbox neigh replace 10.99.0.%d lladdr %s dev eth0 nud permanent", 2-i, otherMAC),
		} {
			h.MustRun(strings.Fields(c)...)
		}
	}
	b.h2.Start("ip", "netns", "exec", "handbox", self, "probe", "serve")
	return &path{what: "hand-made VXLAN", target: "10.99.0.2", client: onHost(b.h1, self, "ip", "netns", "exec", "handbox")}, b.awaitProbe(onHost(b.h1, self, "ip", "netns", "exec", "handbox"), "10.99.0.2")
}

// awaitProbe waits until a server answers.
func (b *bench) awaitProbe(client func(args ...string) (string, error), target string) error {
	ctx, cancel := context.WithTimeout(context.Background(), peerPatience)
	defer cancel()
	return await(ctx, func() error {
		_, err := client("rr", target, "0.01")
		return err
	})
}

// ways are an engine's paths: overlay across hosts, on one host, the default bridge, a published port.
func (b *bench) ways(e *engine, second client, self string) ([]*path, error) {
	on := func(c client, name, network string, more ...string) error {
		_, err := c.run(append(append([]string{"run", "-d", "--name", name, "--network", network, "-v", self + ":" + probeBin + ":ro"}, more...), "busybox", probeBin, "probe", "serve")...)
		return err
	}
	for _, c := range []struct {
		client        client
		name, network string
		more          []string
	}{
		{second, "net-far", overlay, nil}, {e.client, "net-near", overlay, nil}, {e.client, "net-from", overlay, nil},
		{e.client, "net-br1", "bridge", nil}, {e.client, "net-br2", "bridge", nil}, {second, "net-pub", "bridge", probe.Published()},
	} {
		if err := on(c.client, c.name, c.network, c.more...); err != nil {
			return nil, err
		}
	}
	inside := func(name string) func(args ...string) (string, error) {
		return func(args ...string) (string, error) {
			c, err := e.run(append([]string{"exec", name, probeBin, "probe"}, args...)...)
			return c.out, err
		}
	}
	address := func(of client, name string) (string, error) {
		c, err := of.run("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name)
		return strings.TrimSpace(c.out), err
	}
	// Addresses, not names: a question for each connection would be measured, too.
	bridge, err := address(e.client, "net-br2")
	if err != nil {
		return nil, err
	}
	near, err := address(e.client, "net-near")
	if err != nil {
		return nil, err
	}
	far, err := address(second, "net-far")
	if err != nil {
		return nil, err
	}
	other := b.h2.Addr().String()
	if e.name != ourName {
		other = b.dockerSecond.host.Addr().String()
	}
	list := []*path{
		{what: "overlay across hosts", target: far, client: inside("net-from")},
		{what: "overlay on one host", target: near, client: inside("net-from")},
		{what: "bridge", target: bridge, client: inside("net-br1")},
		{what: "a published port", target: probe.PublishedOn(other), client: onHost(e.host, self)},
	}
	for _, p := range list {
		if err := b.awaitProbe(p.client, p.target); err != nil {
			return nil, fmt.Errorf("%s: %w", p.what, err)
		}
	}
	return list, nil
}

// dns measures the resolver in a container, for a name on the other host.
func (b *bench) dns(all []engine) error {
	for _, m := range []struct {
		kind, what, format string
		more               bool
		ratio              float64
	}{
		{"dns1", "DNS, one client", "%.0f /s", true, ratioDNS}, {"dns8", "DNS, eight clients", "%.0f /s", true, ratioDNS},
		{"dns99", "… 99th percentile of eight clients'", "%.2f ms", false, 1},
	} {
		p, err := b.turns(netRepeats, func(e *engine) (float64, error) {
			c, err := e.run("exec", "net-from", probeBin, "probe", m.kind, "net-far", netSeconds)
			if err != nil {
				return 0, err
			}
			return strconv.ParseFloat(strings.TrimSpace(c.out), 64)
		})
		if err != nil {
			return err
		}
		f := versus(m.what, p, m.ratio)
		f.format, f.more = m.format, m.more
		b.table.add(f)
	}
	return nil
}

// publish times a container with ten thousand ports against one without, and weighs the daemon before and after. Docker
// would start twenty thousand processes for it, and is not asked.
func (b *bench) publish() error {
	var took, grew sample
	pid := b.h1.Running().Pid()
	for range netRepeats {
		plain, err := cli(b.h1, "run", "-d", "--name", "ports", "busybox", "sleep", "600")
		if err != nil {
			return err
		}
		if _, err := cli(b.h1, "rm", "-f", "ports"); err != nil {
			return err
		}
		before, err := weigh(pid)
		if err != nil {
			return err
		}
		many, err := cli(b.h1, "run", "-d", "--name", "ports", "-p", fmt.Sprintf("20000-%d:20000-%d", 20000+publishPorts-1, 20000+publishPorts-1), "busybox", "sleep", "600")
		if err != nil {
			return err
		}
		after, err := weigh(pid)
		if err != nil {
			return err
		}
		took, grew = append(took, ms(many.wall-plain.wall)), append(grew, after.Private-before.Private)
		if _, err := cli(b.h1, "rm", "-f", "ports"); err != nil {
			return err
		}
	}
	b.table.add(figure{what: fmt.Sprintf("publishing %d ports: `run -d` more than without", publishPorts), values: took, target: targetPublish})
	b.table.add(figure{what: "… the daemon's memory more than before", values: grew, format: "%.1f MB", target: targetPublishMem})
	return nil
}
