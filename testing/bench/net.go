package main

import (
	"context"
	"errors"
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
	ratioData     = 1    // of docker's figure on the same path
	ratioHandMade = 0.97 // of a hand-made VXLAN's TCP and UDP
)

const (
	netRepeats = 7
	netSeconds = "0.5"
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
	cpu                bool // the probe gives the processor time as well
	handMade           bool // the hand-made VXLAN's figure is a target
}

func metrics() []metric {
	stream := func(kind, what string) metric {
		return metric{kind: kind, what: what, format: "%.2f Gbit/s", more: true, cpu: true, handMade: true}
	}
	return []metric{
		stream("tcp1", "TCP, one stream"), stream("tcp1back", "TCP, one stream from server to client"),
		stream("tcp4", "TCP, four streams"), stream("tcp4back", "TCP, four streams from server to client"),
		{kind: "udp", what: "UDP of 64 bytes, arriving", format: "%.0f /s", more: true, handMade: true},
		{kind: "rr", what: "a byte there and back, both ends on one processor", format: "%.1f µs"},
		{kind: "conns", what: "new connections, both ends on one processor", format: "%.0f /s", more: true},
	}
}

// cpuOf is the sample of a metric's processor time.
func cpuOf(kind string) string { return kind + " cpu" }

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
		second, err := b.second(&all[i])
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
	for i := range netRepeats {
		for _, m := range metrics() {
			for k := range paths { // each round begins with another: who comes after whom matters, too
				p := paths[(i+k)%len(paths)]
				if err := p.measure(m.kind); err != nil {
					return fmt.Errorf("%s, %s: %w", p.what, m.what, err)
				}
			}
		}
	}
	for _, m := range metrics() {
		for _, p := range append(paths[:2:2], ways[0]...) {
			f := p.figure(m.kind, m.what, m.format)
			if f.more = m.more; m.handMade && p == ways[0][0] {
				f.target = ratioHandMade * hand.values[m.kind].median()
			}
			b.table.add(f)
			if m.cpu {
				b.table.add(p.figure(cpuOf(m.kind), "… processor time of both ends", "%.2f s/GB"))
			}
		}
	}
	return b.each(func(e *engine) error {
		second, err := b.second(e)
		if err == nil {
			_, err = second.run("rm", "-f", "net-far", "net-pub")
		}
		if err == nil {
			_, err = e.run("rm", "-f", "net-near", "net-from", "net-br1", "net-br2")
		}
		return err
	})
}

// second is an engine's other host.
func (b *bench) second(e *engine) (client, error) {
	if e.name == ourName {
		return minictl(b.h2)
	}
	return b.dockerSecond.client, nil
}

// figure is one line about a path, beside docker's same way.
func (p *path) figure(kind, what, format string) figure {
	f := figure{what: what + ", " + p.what, values: p.values[kind], format: format}
	if p.theirs != nil {
		f.peer, f.ratio = p.theirs.values[kind], ratioData
	}
	return f
}

func (p *path) measure(kind string) error {
	out, err := p.client(kind, p.target, netSeconds)
	if err != nil {
		return err
	}
	if p.values == nil {
		p.values = map[string]sample{}
	}
	values, err := numbers(out)
	for i, v := range values {
		p.values[kind] = append(p.values[kind], v)
		if i == 0 {
			kind = cpuOf(kind)
		}
	}
	return err
}

// numbers reads what a probe prints.
func numbers(out string) ([]float64, error) {
	var list []float64
	for _, f := range strings.Fields(out) {
		v, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return nil, fmt.Errorf("the probe says %q: %w", out, err)
		}
		list = append(list, v)
	}
	if len(list) == 0 {
		return nil, errors.New("the probe says nothing")
	}
	return list, nil
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
			"ip netns add hand", "ip netns add handbox", "ip netns exec hand sysctl -qe -w net.bridge.bridge-nf-call-iptables=0", "ip -n hand link add br0 type bridge", "ip -n hand link set br0 up",
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

// serveProbe starts a container with a server.
func serveProbe(c client, self, name, network string, more ...string) error {
	_, err := c.run(append(append([]string{"run", "-d", "--name", name, "--network", network, "-v", self + ":" + probeBin + ":ro"}, more...), "busybox", probeBin, "probe", "serve")...)
	return err
}

// inside runs a probe's client in a container.
func (e *engine) inside(name string) func(args ...string) (string, error) {
	return func(args ...string) (string, error) {
		c, err := e.run(append([]string{"exec", name, probeBin, "probe"}, args...)...)
		return c.out, err
	}
}

// ways are an engine's paths: overlay across hosts, on one host, the default bridge, a published port.
func (b *bench) ways(e *engine, second client, self string) ([]*path, error) {
	for _, c := range []struct {
		client        client
		name, network string
		more          []string
	}{
		{second, "net-far", overlay, nil}, {e.client, "net-near", overlay, nil}, {e.client, "net-from", overlay, nil},
		{e.client, "net-br1", "bridge", nil}, {e.client, "net-br2", "bridge", nil}, {second, "net-pub", "bridge", probe.Published()},
	} {
		if err := serveProbe(c.client, self, c.name, c.network, c.more...); err != nil {
			return nil, err
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
		{what: "overlay across hosts", target: far, client: e.inside("net-from")},
		{what: "overlay on one host", target: near, client: e.inside("net-from")},
		{what: "bridge", target: bridge, client: e.inside("net-br1")},
		{what: "a published port", target: probe.PublishedOn(other), client: onHost(e.host, self)},
	}
	for _, p := range list {
		if err := b.awaitProbe(p.client, p.target); err != nil {
			return nil, fmt.Errorf("%s: %w", p.what, err)
		}
	}
	return list, nil
}
