// Command bench measures what minictl's users wait for and what it costs them, on two hosts made of namespaces, beside
// Debian's Docker Engine on two more, and prints the figures as one markdown table. It judges nothing: it fails only when something did not work at all.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/minictl/minictl/testing/bench/probe"
	"github.com/minictl/minictl/testing/lab"
)

func main() {
	lab.Reexec()
	if len(os.Args) > 1 && os.Args[1] == "probe" {
		if err := probe.Main(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	b := &bench{}
	b.Log = func(text string) { fmt.Fprintln(os.Stderr, text) }
	var names []string
	for _, p := range b.parts() {
		names = append(names, p.name)
	}
	only := flag.String("only", "", "measure these `parts` only, separated by commas: "+strings.Join(names, ", "))
	flag.IntVar(&b.n, "n", 20, "repeat each `run --rm` so often")
	flag.BoolVar(&b.docker, "docker", true, "measure Docker Engine beside it, when make bench-deps has brought it here")
	flag.Parse()
	err := b.choose(*only)
	if err == nil {
		err = b.Run(b.measure)
	}
	if b.table.alone = b.dockerGone; !b.docker {
		b.table.alone = "left out (-docker=false)"
	}
	fmt.Print(b.table)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is the lab and what was measured in it. The lab is built when the first part needs it.
type bench struct {
	lab.Program
	n     int
	only  []string
	table table

	lab      *lab.Lab
	h1, h2   *lab.Host
	networks bool // the overlay and its cluster are there

	docker       bool   // it is wanted
	dockerGone   string // why it is not there, nevertheless
	dockerEngine *engine
	dockerSecond *engine
}

// part is one group of figures.
type part struct {
	name    string
	measure func() error
}

// parts are in the order in which they run: what wants fresh daemons comes first.
func (b *bench) parts() []part {
	return []part{
		{"sizes", b.sizes}, {"start", b.starts}, {"memory", b.memory}, {"idle", b.idle}, {"run", b.runs}, {"trace", b.trace}, {"exec", b.execs}, {"streams", b.streams},
		{"concurrent", b.concurrent}, {"many", b.many}, {"list", b.list}, {"pull", b.pull}, {"names", b.names}, {"net", b.network}, {"dns", b.dns}, {"ports", b.publish}, {"attach", b.attach}, {"members", b.members}, {"cluster", b.clusters},
	}
}

func (b *bench) choose(only string) error {
	if b.n < 1 {
		return errors.New("-n: want at least 1")
	}
	if only == "" {
		return nil
	}
	b.only = strings.Split(only, ",")
	for _, o := range b.only {
		if !slices.ContainsFunc(b.parts(), func(p part) bool { return p.name == o }) {
			return fmt.Errorf("-only: no part %q: see -help", o)
		}
	}
	return nil
}

// measure runs the chosen parts. One that fails does not keep the others from running.
func (b *bench) measure() error {
	for _, p := range b.parts() {
		if b.only != nil && !slices.Contains(b.only, p.name) {
			continue
		}
		fmt.Fprintln(os.Stderr, "measuring", p.name)
		if err := p.measure(); err != nil {
			b.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// hosts gives two hosts with a daemon each and the busybox image; made once.
func (b *bench) hosts() error {
	if b.h1 != nil {
		return nil
	}
	if b.lab == nil {
		b.lab = lab.New(b)
	}
	image, err := filepath.Abs("bin/images/busybox.tar")
	if err != nil {
		return err
	}
	h1, h2 := b.lab.Host("host1"), b.lab.Host("host2")
	for _, h := range []*lab.Host{h1, h2} {
		h.Daemon()
		if _, err := cli(h, "load", "-q", "-i", image); err != nil {
			return err
		}
	}
	b.h1, b.h2 = h1, h2
	return nil
}

// overlay is the network that spans the two hosts.
const overlay = "bench"

// cluster joins the two hosts and gives them an overlay; done once.
func (b *bench) cluster() error {
	if err := b.hosts(); err != nil || b.networks {
		return err
	}
	out, err := b.h1.MustMinictl("cluster", "init", "--advertise-addr", "eth0"), error(nil)
	i := strings.Index(out, "cluster join ")
	if i < 0 {
		return fmt.Errorf("no line to join with in what cluster init printed:\n%s", out)
	}
	line, _, _ := strings.Cut(out[i:], "\n")
	b.h2.MustMinictl(strings.Fields(line)...)
	if _, err = cli(b.h1, "network", "create", "-d", "overlay", overlay); err == nil {
		b.networks = true
	}
	return err
}

// on gives a host by its name.
func (b *bench) on(name string) *lab.Host {
	if name == b.h2.Name() {
		return b.h2
	}
	return b.h1
}
