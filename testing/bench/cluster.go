package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/minictl/minictl/testing/lab"
)

// What the project wants of a cluster.
const (
	targetGoneS   = 5.0
	targetLeaderS = 3.0
)

// The sizes that are measured: the two that many have, three and five that vote, and all the rest at once.
const (
	twoHosts   = 2
	firstHosts = 3
	someHosts  = 5
	allHosts   = 20
	// quietTime is how long the control traffic of hosts without work is counted.
	quietTime = 15 * time.Second
)

// clusters measures a cluster of its own that grows: joining, control traffic, the death of the leader and of another
// host, and whether a name is there when run returns.
func (b *bench) clusters() error {
	g := &growing{bench: b, lab: lab.New(b)}
	steps := []func() error{
		func() error { return g.grow(twoHosts, false) },
		func() error {
			_, err := cli(g.hosts[0], "network", "create", "-d", "overlay", overlay)
			return err
		},
		g.reach,
		func() error { return g.grow(firstHosts, false) },
		g.traffic, g.leaderDies,
		func() error { return g.grow(someHosts, false) },
		func() error {
			b.table.add(figure{what: "`cluster join`, one host after another", values: g.joins})
			return g.reach()
		},
		g.hostDies,
		func() error { return g.grow(allHosts, true) },
		g.traffic, g.reach,
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// growing is that cluster.
type growing struct {
	*bench
	lab   *lab.Lab
	hosts []*lab.Host
	joins sample
}

// grow brings hosts up and into the cluster until there are n.
func (g *growing) grow(n int, atOnce bool) error {
	var more []*lab.Host
	for i := len(g.hosts); i < n; i++ {
		h := g.lab.Host("member" + strconv.Itoa(i+1))
		h.Daemon()
		more = append(more, h)
	}
	if len(g.hosts) == 0 {
		if _, err := cli(more[0], "cluster", "init", "--advertise-addr", "eth0"); err != nil {
			return err
		}
		g.hosts, more = more[:1], more[1:]
	}
	token, err := cli(g.hosts[0], "cluster", "token", "-q")
	if err != nil {
		return err
	}
	join := func(h *lab.Host) (call, error) {
		return cli(h, "cluster", "join", "--token", strings.TrimSpace(token.out), g.hosts[0].Addr().String())
	}
	if !atOnce {
		for _, h := range more {
			c, err := join(h)
			if err != nil {
				return err
			}
			g.joins = append(g.joins, ms(c.wall))
			g.hosts = append(g.hosts, h)
		}
		return g.settled()
	}
	errs := make([]error, len(more))
	var all sync.WaitGroup
	began := time.Now()
	for i, h := range more {
		all.Go(func() { _, errs[i] = join(h) })
	}
	all.Wait()
	took := time.Since(began).Seconds()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	g.hosts = append(g.hosts, more...)
	g.table.add(figure{what: fmt.Sprintf("joins per second, %d hosts at once into a cluster of %d", len(more), n-len(more)), values: sample{float64(len(more)) / took}, format: "%.1f"})
	return g.settled()
}

// settled waits until everybody sees everybody.
func (g *growing) settled() error {
	ctx, cancel := context.WithTimeout(context.Background(), peerPatience)
	defer cancel()
	return await(ctx, func() error {
		for _, h := range g.hosts {
			c, err := cli(h, "node", "ls", "--format", "{{.Status}}")
			if err != nil {
				return err
			}
			if n := strings.Count(c.out, "Ready"); n != len(g.hosts) {
				return fmt.Errorf("%s sees %d hosts of %d", h.Name(), n, len(g.hosts))
			}
		}
		return nil
	})
}

// traffic counts what a host sends and receives when nothing happens, by the kernel's counters of its one network card, and
// the processor time that goes into it.
func (g *growing) traffic() error {
	before, used, err := g.counters()
	if err != nil {
		return err
	}
	time.Sleep(quietTime)
	after, now, err := g.counters()
	if err != nil {
		return err
	}
	var perHost, busy sample
	for i := range after {
		perHost = append(perHost, float64(after[i]-before[i])*8/1000/quietTime.Seconds())
		busy = append(busy, 100*(now[i]-used[i]).Seconds()/quietTime.Seconds())
	}
	g.table.add(figure{what: fmt.Sprintf("control traffic of a host without work, %d members, both directions", len(g.hosts)), values: perHost, format: "%.0f kbit/s"})
	g.table.add(figure{what: "… its processor", values: busy, format: "%.2f %%"})
	return nil
}

func (g *growing) counters() (bytes []uint64, cpu []time.Duration, err error) {
	for _, h := range g.hosts {
		used, err := h.CPU()
		if err != nil {
			return nil, nil, err
		}
		cpu = append(cpu, used)
	}
	bytes, err = g.bytes()
	return bytes, cpu, err
}

func (g *growing) bytes() ([]uint64, error) {
	var out []uint64
	for _, h := range g.hosts {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", h.Pid()))
		if err != nil {
			return nil, err
		}
		n, err := cardBytes(string(text), "eth0")
		if err != nil {
			return nil, fmt.Errorf("%s: %w", h.Name(), err)
		}
		out = append(out, n)
	}
	return out, nil
}

// cardBytes adds what a card has received and sent up, from the text of /proc/net/dev (proc_pid_net(5)).
func cardBytes(text, card string) (uint64, error) {
	for line := range strings.Lines(text) {
		name, counts, ok := strings.Cut(line, ":")
		f := strings.Fields(counts)
		if !ok || strings.TrimSpace(name) != card || len(f) < 9 {
			continue
		}
		in, err := strconv.ParseUint(f[0], 10, 64)
		if err != nil {
			return 0, err
		}
		out, err := strconv.ParseUint(f[8], 10, 64)
		return in + out, err
	}
	return 0, fmt.Errorf("no card %s", card)
}

// leaderDies cuts the leader's power and waits until the two others have a leader among them.
func (g *growing) leaderDies() error {
	c, err := cli(g.hosts[0], "cluster", "status", "-f", "{{range .Nodes}}{{if .Leader}}{{.Name}}{{end}}{{end}}")
	if err != nil {
		return err
	}
	var dead, other *lab.Host
	for _, h := range g.hosts {
		if h.Name() == strings.TrimSpace(c.out) {
			dead = h
		} else {
			other = h
		}
	}
	if dead == nil {
		return fmt.Errorf("no leader: %q", c.out)
	}
	dead.Halt()
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), peerPatience)
	defer cancel()
	err = await(ctx, func() error {
		c, err := cli(other, "cluster", "status", "-f", "{{range .Nodes}}{{if .Leader}}{{.Name}}{{end}}{{end}}")
		if now := strings.TrimSpace(c.out); err == nil && (now == "" || now == dead.Name()) {
			err = errors.New("no new leader")
		}
		return err
	})
	if err != nil {
		return err
	}
	g.table.add(figure{what: "a leader's power cut, 3 voters: until the others have one", values: sample{time.Since(began).Seconds()}, format: "%.1f s", target: targetLeaderS})
	err = await(ctx, func() error {
		_, err := cli(other, "network", "create", "-d", "overlay", "after-"+dead.Name())
		return err
	})
	if err != nil {
		return err
	}
	g.table.add(figure{what: "… until `network create` has succeeded there", values: sample{time.Since(began).Seconds()}, format: "%.1f s"})
	dead.Boot()
	dead.RestartDaemon()
	return g.settled()
}

// reach starts a container on each host in turn, and asks for its name on the next: the time from run's return to the
// answer to the first ping that gets one, less what a ping between containers that are known takes.
func (g *growing) reach() error {
	for _, h := range g.hosts {
		if _, err := cli(h, "start", "prober-"+h.Name()); err == nil {
			continue // from when there were fewer; its host may have lost power since
		}
		if _, err := cli(h, "load", "-q", "-i", "bin/images/busybox.tar"); err != nil {
			return err
		}
		if _, err := cli(h, "run", "-d", "--name", "prober-"+h.Name(), "--network", overlay, "busybox", "sleep", "86400"); err != nil {
			return err
		}
	}
	var late, runs sample
	for i := range g.n {
		here, there := g.hosts[i%len(g.hosts)], g.hosts[(i+1)%len(g.hosts)]
		name := fmt.Sprintf("reached%d", i)
		c, err := cli(here, "run", "-d", "--name", name, "--network", overlay, "busybox", "sleep", "86400")
		if err != nil {
			return err
		}
		runs = append(runs, ms(c.wall))
		began := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), peerPatience)
		tries := 0
		err = await(ctx, func() error {
			tries++
			_, err := cli(there, "exec", "prober-"+there.Name(), "ping", "-c", "1", "-W", "1", name)
			return err
		})
		cancel()
		if err != nil {
			return err
		}
		if tries == 1 {
			late = append(late, 0) // already true
		} else {
			late = append(late, ms(time.Since(began)))
		}
		if _, err := cli(here, "rm", "-f", name); err != nil {
			return err
		}
	}
	g.table.add(figure{what: fmt.Sprintf("from `run`'s return until another host of %d resolves and pings it; 0: at the first try", len(g.hosts)), values: late})
	g.table.add(figure{what: fmt.Sprintf("`run -d` on an overlay of %d hosts", len(g.hosts)), values: runs})
	return nil
}

// hostDies cuts the power of a host that runs a container, and waits until its name is gone everywhere else.
func (g *growing) hostDies() error {
	dead := g.hosts[len(g.hosts)-1]
	rest := g.hosts[:len(g.hosts)-1]
	name := "prober-" + dead.Name()
	dead.Halt()
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), peerPatience)
	defer cancel()
	var gone sample
	for _, h := range rest {
		err := await(ctx, func() error {
			if _, err := cli(h, "exec", "prober-"+h.Name(), "nslookup", name); err == nil {
				return fmt.Errorf("%s still knows %s", h.Name(), name)
			}
			return nil
		})
		if err != nil {
			return err
		}
		gone = append(gone, time.Since(began).Seconds())
	}
	last := gone.sorted()[len(gone)-1]
	g.table.add(figure{what: fmt.Sprintf("a host's power cut: until the last of %d others has forgotten its names", len(rest)), values: sample{last}, format: "%.1f s", target: targetGoneS})
	dead.Boot()
	dead.RestartDaemon()
	return g.settled()
}
