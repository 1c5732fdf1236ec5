package main

import (
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/minictl/minictl/testing/lab"
)

// What the project wants to reach: the last size's time as a share of the first's.
const ratioAttach = 1.2

// crowd is the overlay that fills up; its subnet holds more than a thousand.
const crowd = "crowd"

// attachRepeats is how often an endpoint is attached at each size; attachLimit is how many containers start at once.
const (
	attachRepeats = 15
	attachLimit   = 4
)

// attach times how long a running container takes to join an overlay, as a function of the endpoints that are there
// already. They are spread over the two hosts, since a bridge has no more than 1023 ports.
func (b *bench) attach() error {
	if err := b.cluster(); err != nil {
		return err
	}
	if _, err := cli(b.h1, "network", "create", "-d", "overlay", "--subnet", "10.77.0.0/20", crowd); err != nil {
		return err
	}
	if _, err := cli(b.h1, "run", "-d", "--name", "joiner", "busybox", "sleep", "86400"); err != nil {
		return err
	}
	there, first := 0, 0.0
	for _, n := range []int{10, 100, 1000} {
		if err := b.fill(there, n); err != nil {
			return err
		}
		there = n
		var took sample
		for range attachRepeats {
			c, err := cli(b.h1, "network", "connect", crowd, "joiner")
			if err != nil {
				return err
			}
			took = append(took, ms(c.wall))
			if _, err := cli(b.h1, "network", "disconnect", crowd, "joiner"); err != nil {
				return err
			}
		}
		f := figure{what: fmt.Sprintf("`network connect` to an overlay with %d endpoints on two hosts", n), values: took, format: "%.1f ms"}
		if first == 0 {
			first = took.median()
		} else {
			f.target = ratioAttach * first
		}
		b.table.add(f)
	}
	return b.empty(there)
}

func crowdName(i int) string { return fmt.Sprintf("crowd%d", i) }

// crowdHost is where the i-th of the crowd runs.
func (b *bench) crowdHost(i int) *lab.Host { return []*lab.Host{b.h1, b.h2}[i%2] }

// fill starts containers on the crowd's network until there are n.
func (b *bench) fill(have, n int) error {
	var g errgroup.Group
	g.SetLimit(attachLimit)
	for i := have; i < n; i++ {
		g.Go(func() error {
			_, err := cli(b.crowdHost(i), "run", "-d", "--name", crowdName(i), "--network", crowd, "busybox", "sleep", "86400")
			return err
		})
	}
	return g.Wait()
}

// empty removes them all.
func (b *bench) empty(n int) error {
	lists := [2][]string{{"rm", "-f", "joiner"}, {"rm", "-f"}}
	for i := range n {
		lists[i%2] = append(lists[i%2], crowdName(i))
	}
	var g errgroup.Group
	for i, args := range lists {
		g.Go(func() error { _, err := cli(b.crowdHost(i), args...); return err })
	}
	return g.Wait()
}
