package main

import (
	"fmt"
	"os"
	"strings"
)

// nameContainers is how many names are asked for; all of them should answer.
const nameContainers = 50

// names asks on one host for a container that `run` has this moment started on the other: one question, one ping, no
// second try. The hosts take turns.
func (b *bench) names() error {
	if err := b.cluster(); err != nil {
		return err
	}
	for _, h := range []string{"host1", "host2"} {
		if _, err := cli(b.on(h), "run", "-d", "--name", "prober-"+h, "--network", overlay, "busybox", "sleep", "86400"); err != nil {
			return err
		}
	}
	answered := 0.0
	var pings sample
	remove := map[string][]string{"host1": {"rm", "-f", "prober-host1"}, "host2": {"rm", "-f", "prober-host2"}}
	for i := range nameContainers {
		here, there := "host2", "host1"
		if i%2 == 1 {
			here, there = there, here
		}
		name := fmt.Sprintf("name%d", i)
		if _, err := cli(b.on(here), "run", "-d", "--name", name, "--network", overlay, "busybox", "sleep", "86400"); err != nil {
			return err
		}
		remove[here] = append(remove[here], name)
		c, err := cli(b.on(there), "exec", "prober-"+there, "ping", "-c", "1", "-W", "1", name)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%v\n%s", err, strings.TrimSpace(c.out))
			continue
		}
		answered++
		pings = append(pings, ms(c.wall))
	}
	b.table.add(figure{
		what: fmt.Sprintf("names of %d new containers that answer the other host's first ping", nameContainers), values: sample{answered},
		format: "%.0f", target: nameContainers, more: true,
	})
	b.table.add(figure{what: "… `exec` with that ping", values: pings})
	for h, args := range remove {
		if _, err := cli(b.on(h), args...); err != nil {
			return err
		}
	}
	return nil
}
