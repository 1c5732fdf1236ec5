// Command chaos does random things to a cluster of real daemons, faults among them, and looks whether every promise holds:
// no two live endpoints of a network share an address, ever; what somebody was told is there is there when all is healed;
// then every host's names, forwarding and neighbour rows are those of the containers that run, the books of addresses
// agree with them, and networks' names have a history that one order explains; and when all is removed nothing is left.
//
// Each seed is a plan of episodes on a cluster of its own. The seed is printed first, and does the same things again.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/minictl/minictl/testing/lab"
)

func main() {
	lab.Reexec()
	var o options
	flag.Uint64Var(&o.seed, "seed", rand.Uint64N(1_000_000), "the first seed; those after it follow")
	flag.DurationVar(&o.span, "for", 0, "begin new seeds for this long; 0: one seed")
	flag.IntVar(&o.hosts, "hosts", 0, "daemons; 0: 2 to 5, by the seed")
	flag.IntVar(&o.episodes, "episodes", 4, "of each seed")
	flag.IntVar(&o.rounds, "rounds", 12, "of each episode")
	flag.DurationVar(&o.patience, "patience", 90*time.Second, "what a healed cluster may take to be whole again")
	flag.StringVar(&o.images, "images", "bin/images", "where make images puts them")
	flag.StringVar(&o.keep, "keep", "", "a folder for the hosts' logs of seeds that fail")
	flag.Parse()
	if abs, err := filepath.Abs(o.images); err == nil { // hosts have another working folder
		o.images = abs
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := o.run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

type options struct {
	seed                    uint64
	span, patience          time.Duration
	hosts, episodes, rounds int
	images, keep            string
}

// run plays seed after seed until the time is over, and reports.
func (o options) run(ctx context.Context, out io.Writer) error {
	began := time.Now()
	var total counts
	var failed []string
	seeds := 0
	for seed := o.seed; ; seed++ {
		seeds++
		p := lab.Program{Log: func(s string) {
			if o.keep == "" || !strings.Contains(s, "\n") { // a lab's dump is in what is kept
				fmt.Fprintln(out, s)
			}
		}}
		err := p.Run(func() error { return o.play(ctx, &p, seed, &total) })
		if err != nil {
			failed = append(failed, fmt.Sprintf("seed %d: %v", seed, err))
			fmt.Fprintf(out, "seed %d FAILED: %v\n", seed, err)
		}
		if ctx.Err() != nil || time.Since(began) >= o.span {
			break
		}
	}
	fmt.Fprintf(out, "\n%d seeds in %v, %d of them failed\n%s", seeds, time.Since(began).Round(time.Second), len(failed), total.report())
	if len(failed) > 0 {
		return errors.New(strings.Join(failed, "\n"))
	}
	return nil
}

func (c *counts) report() string {
	var b strings.Builder
	for _, k := range sortedNames(c.calls) {
		fmt.Fprintf(&b, "%7d %s\n", c.calls[k], k)
	}
	if n := len(c.settled); n > 0 {
		slices.Sort(c.settled)
		fmt.Fprintf(&b, "whole again after healing, %d times: median %v, 95 of 100 within %v, longest %v\n", n,
			c.settled[n/2].Round(time.Millisecond), c.settled[n*95/100].Round(time.Millisecond), c.settled[n-1].Round(time.Millisecond))
	}
	b.WriteString("not done:\n")
	for _, k := range sortedNames(c.refused) {
		fmt.Fprintf(&b, "%7d %s\n", c.refused[k], k)
	}
	return b.String()
}

// play does what one seed stands for.
func (o options) play(ctx context.Context, tb lab.TB, seed uint64, total *counts) error {
	hosts := o.hosts
	if hosts == 0 {
		hosts = 2 + int(seed%4)
	}
	began := time.Now()
	log := func(s string) { tb.Logf("%8.3f %s", time.Since(began).Seconds(), s) }
	log(fmt.Sprintf("seed %d: %d hosts; again: chaos -seed %d -hosts %d -episodes %d -rounds %d", seed, hosts, seed, hosts, o.episodes, o.rounds))
	w, err := newWorld(ctx, tb, o, hosts, log)
	if err != nil {
		return err
	}
	defer func() { total.merge(&w.count) }()
	for _, e := range plan(seed, hosts, o.episodes, o.rounds) {
		w.episode(ctx, e)
		if len(w.violations) > 0 || ctx.Err() != nil {
			break
		}
	}
	if len(w.violations) == 0 && ctx.Err() == nil {
		w.finish(ctx)
	}
	if err := errors.Join(w.violations...); err != nil {
		return errors.Join(err, o.keepLogs(w, seed))
	}
	return nil
}

// keepLogs copies what the daemons wrote, before the lab goes.
func (o options) keepLogs(w *world, seed uint64) error {
	if o.keep == "" {
		return nil
	}
	dir := filepath.Join(o.keep, fmt.Sprint(seed))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, h := range w.hosts {
		b, err := os.ReadFile(filepath.Join(h.Dir(), "daemon.log"))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, h.Name()+".log"), b, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
