package main

import (
	"fmt"
	"os"
	"time"
)

// streamBytes is what a container prints, in lines of 100 characters.
const (
	streamBytes   = 64_000_000
	streamRepeats = 3
)

// printer is the command of a container that prints streamBytes.
func printer() []string {
	line := make([]byte, 99)
	for i := range line {
		line[i] = 'a' + byte(i%26)
	}
	return []string{"busybox", "sh", "-c", fmt.Sprintf("yes %s | head -c %d", line, streamBytes)}
}

// streams measures how fast a container's output comes to its user: from the log of one that has ended, and live, while the
// log is written too.
func (b *bench) streams() error {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	rate := func(d time.Duration) float64 { return streamBytes / 1e6 / d.Seconds() }
	live, err := b.turns(streamRepeats, func(e *engine) (float64, error) {
		c, err := e.runTo(null, append([]string{"run", "--rm", "--network", "none"}, printer()...)...)
		return rate(c.wall), err
	})
	if err != nil {
		return err
	}
	err = b.each(func(e *engine) error {
		_, err := e.runTo(null, append([]string{"run", "--name", "printed", "--network", "none"}, printer()...)...)
		return err
	})
	if err != nil {
		return err
	}
	logs, err := b.turns(streamRepeats, func(e *engine) (float64, error) {
		c, err := e.runTo(null, "logs", "printed")
		return rate(c.wall), err
	})
	if err != nil {
		return err
	}
	for _, r := range []struct {
		what string
		pair pair
	}{{"`logs`", logs}, {"attached `run`", live}} {
		f := versus(fmt.Sprintf("%s of %d MB, lines of 100 characters", r.what, streamBytes/1_000_000), r.pair, 1)
		f.format, f.more = "%.0f MB/s", true
		b.table.add(f)
	}
	return b.each(func(e *engine) error {
		_, err := e.run("rm", "printed")
		return err
	})
}
