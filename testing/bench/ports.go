package main

import "fmt"

// What the project wants to reach.
const (
	targetPublish    = 1000 // ms to publish publishPorts
	targetPublishMem = 20   // MB for them
	publishPorts     = 10000
	publishRepeats   = 3
)

// publish times a container with ten thousand ports against one without, and weighs the daemon before and after. Docker
// would start twenty thousand processes for it, and is not asked.
func (b *bench) publish() error {
	if err := b.cluster(); err != nil {
		return err
	}
	var took, grew sample
	pid := b.h1.Running().Pid()
	for range publishRepeats {
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
