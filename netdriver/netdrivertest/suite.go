package netdrivertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/sandbox"
)

// Subject is a driver under the conformance suite.
type Subject struct {
	// Golden names the golden text; empty: the driver's type.
	Golden string
	// Kind is the kernel's word for the endpoints' interfaces; empty: veth.
	Kind string
	// New gives a driver as a starting daemon would, in the calling thread's namespace. Called again, it has to go on
	// with what the first left in the kernel.
	New func(t *testing.T) netdriver.Driver
	// Network is the network the suite makes.
	Network netdriver.Network
	// Endpoints are two endpoints of it, with different interface names.
	Endpoints [2]netdriver.Endpoint
	// Namespaces are paths of namespaces that the driver makes beside the sandboxes; their listings count.
	Namespaces []string
	// Inert says that the driver makes nothing: what has to go again with an endpoint is not asked of it.
	Inert bool
	// Prepare, if any, readies the fresh namespace the daemon shall live in.
	Prepare func(t *testing.T)
}

// Suite runs the behaviours every driver owes its callers. Goldens are read from testdata/<name>.golden; with
// GOLDEN=update in the environment they are written instead.
func Suite(t *testing.T, subject func(t *testing.T, dir string) Subject) {
	for _, b := range []struct {
		name string
		run  func(*testing.T, *bench)
		made bool // it is about what an endpoint has in the kernel
	}{
		{"golden", golden, false}, {"repeat", repeat, false}, {"random", random, false}, {"restart", restart, false}, {"faults", faults, true},
		{"sandbox gone", sandboxGone, true}, {"sandbox moved", sandboxMoved, true},
	} {
		t.Run(b.name, func(t *testing.T) {
			NewNS(t)
			dir := Dir(t)
			s := subject(t, dir)
			if s.Inert && b.made {
				return
			}
			b.run(t, newBench(t, s, dir))
		})
	}
}

// bench is a driver on trial in its own namespace.
type bench struct {
	Subject
	driver  netdriver.Driver
	boxes   [2]netdriver.Sandbox
	present bool    // the network has been ensured or joined
	joined  [2]bool // by endpoint
}

// newBench prepares the namespace and two sandboxes.
func newBench(t *testing.T, s Subject, dir string) *bench {
	t.Helper()
	if s.Prepare != nil {
		s.Prepare(t)
	}
	b := &bench{Subject: s, driver: s.New(t)}
	for i, id := range []string{"a", "b"} {
		b.boxes[i] = NewSandbox(t, filepath.Join(dir, "sandboxes"), id)
	}
	return b
}

// listing is the whole of what a driver may touch.
func (b *bench) listing(t *testing.T) string {
	t.Helper()
	text := "# daemon\n" + Listing(t, "")
	for _, ns := range b.Namespaces {
		if sandbox.Exists(ns) {
			text += "# " + filepath.Base(ns) + "\n" + Listing(t, ns)
		}
	}
	for _, s := range b.boxes {
		if sandbox.Exists(s.Path) {
			text += "# sandbox " + s.ID + "\n" + Listing(t, s.Path)
		}
	}
	return text
}

// state is one the network can be in on a host.
type state struct {
	present bool
	joined  [2]bool
}

// String names the state.
func (s state) String() string {
	name := map[bool]string{false: "absent", true: "present"}[s.present]
	for i, in := range s.joined {
		if in {
			name += "+" + string(rune('a'+i))
		}
	}
	return name
}

// states are all of them.
func states() []state {
	return []state{{}, {present: true}, {true, [2]bool{true, false}}, {true, [2]bool{false, true}}, {true, [2]bool{true, true}}}
}

// visit leads to a state, repeating at random what already is.
func (b *bench) visit(t *testing.T, to state, again func() bool) {
	t.Helper()
	ctx := context.Background()
	for i, e := range b.Endpoints {
		if !to.joined[i] && (b.joined[i] || again()) {
			must(t, b.driver.Leave(ctx, b.Network, e))
			b.joined[i] = false
		}
	}
	if to.present && (!b.present || again()) {
		must(t, b.driver.Ensure(ctx, b.Network))
	}
	if !to.present && (b.present || again()) {
		must(t, b.driver.Remove(ctx, b.Network))
	}
	b.present = to.present
	for i, e := range b.Endpoints {
		if to.joined[i] && (!b.joined[i] || again()) {
			b.join(t, e, b.boxes[i])
			b.joined[i] = true
		}
	}
}

// join joins and checks what the driver says it made.
func (b *bench) join(t *testing.T, e netdriver.Endpoint, s netdriver.Sandbox) {
	t.Helper()
	at, err := b.driver.Join(context.Background(), b.Network, e, s)
	must(t, err)
	if at.Interface == "" {
		return
	}
	if line := fmt.Sprintf("link %s %s mtu %d ", at.Interface, cmp.Or(b.Kind, "veth"), at.MTU); !strings.Contains(Listing(t, s.Path), line) {
		t.Fatalf("Join says %+v, but the sandbox has\n%s", at, Listing(t, s.Path))
	}
}

// always and never are the two sure choices of again.
func always() bool { return true }
func never() bool  { return false }

// golden compares every state's listing with the golden text.
func golden(t *testing.T, b *bench) {
	var text strings.Builder
	for _, s := range states() {
		b.visit(t, s, never)
		fmt.Fprintf(&text, "##### %s\n%s", s, b.listing(t))
	}
	b.visit(t, state{}, never)
	fmt.Fprintf(&text, "##### removed\n%s", b.listing(t))
	file := filepath.Join("testdata", cmp.Or(b.Golden, b.driver.Type())+".golden")
	if os.Getenv("GOLDEN") == "update" {
		must(t, os.MkdirAll("testdata", 0o755))
		must(t, os.WriteFile(file, []byte(text.String()), 0o644))
	}
	want, err := os.ReadFile(file)
	must(t, err)
	same(t, text.String(), string(want))
}

// repeat does everything twice and wants the second time to change nothing.
func repeat(t *testing.T, b *bench) {
	empty := b.listing(t)
	for _, s := range slices.Concat(states(), []state{{}}) {
		b.visit(t, s, never)
		once := b.listing(t)
		b.visit(t, s, always)
		same(t, b.listing(t), once)
	}
	same(t, b.listing(t), empty)
}

// random visits the states in random order: the way to a state must not show in it.
func random(t *testing.T, b *bench) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	seen := make(map[state]string)
	for range 25 {
		s := states()[rnd.IntN(len(states()))]
		b.visit(t, s, func() bool { return rnd.IntN(2) == 0 })
		now := b.listing(t)
		if before, ok := seen[s]; ok {
			same(t, now, before)
		}
		seen[s] = now
	}
}

// restart changes the driver for a new one in every state.
func restart(t *testing.T, b *bench) {
	empty := b.listing(t)
	for _, s := range states() {
		b.visit(t, s, never)
		before := b.listing(t)
		b.driver = b.New(t)
		b.visit(t, s, always)
		same(t, b.listing(t), before)
		b.driver = b.New(t)
		b.visit(t, state{}, never)
		same(t, b.listing(t), empty)
	}
}

// faults makes Join fail and wants nothing of the endpoint left, in whichever state it was tried.
func faults(t *testing.T, b *bench) {
	missing := netdriver.Sandbox{ID: "gone", Path: filepath.Join(filepath.Dir(b.boxes[0].Path), "gone")}
	clash := b.Endpoints[1]
	clash.Interface = b.Endpoints[0].Interface
	lost := b.Endpoints[1] // it fails when all but the last step has been made
	lost.Gateway = netip.MustParseAddr("203.0.113.1")
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	tries := map[string]func() error{
		"missing sandbox": func() error { return b.tryJoin(context.Background(), b.Endpoints[1], missing) },
		"interface taken": func() error { return b.tryJoin(context.Background(), clash, b.boxes[0]) },
		"gateway afar":    func() error { return b.tryJoin(context.Background(), lost, b.boxes[1]) },
		"cancelled":       func() error { return b.tryJoin(cancelled, b.Endpoints[1], b.boxes[1]) },
	}
	wants := map[string]func(error) bool{
		"missing sandbox": errdefs.IsNotFound, "interface taken": errdefs.IsAlreadyExists, "cancelled": isCancelled,
		"gateway afar": func(err error) bool { return errors.Is(err, syscall.ENETUNREACH) },
	}
	b.visit(t, state{present: true, joined: [2]bool{true, false}}, never)
	before := b.listing(t)
	for _, name := range slices.Sorted(maps.Keys(tries)) {
		err := tries[name]()
		if err == nil {
			t.Errorf("%s: Join succeeds", name)
		} else if !wants[name](err) {
			t.Errorf("%s: Join fails with %v", name, err)
		}
		same(t, b.listing(t), before)
	}
}

// tryJoin is Join for its error.
func (b *bench) tryJoin(ctx context.Context, e netdriver.Endpoint, s netdriver.Sandbox) error {
	_, err := b.driver.Join(ctx, b.Network, e, s)
	return err
}

// isCancelled tells a cancelled context's error.
func isCancelled(err error) bool { return errors.Is(err, context.Canceled) }

// sandboxGone leaves after the sandbox has been removed, and after the driver has been restarted as well.
func sandboxGone(t *testing.T, b *bench) {
	b.visit(t, state{present: true, joined: [2]bool{false, true}}, never)
	want := b.listing(t)
	b.visit(t, state{present: true, joined: [2]bool{true, true}}, never)
	text := Listing(t, b.boxes[0].Path)
	must(t, sandbox.Remove(b.boxes[0].Path))
	b.driver = b.New(t)
	b.visit(t, state{present: true, joined: [2]bool{false, true}}, always)
	if _, err := sandbox.Create(context.Background(), b.boxes[0].Path); err != nil {
		t.Fatal(err)
	}
	// A namespace that nobody holds goes with its devices, but at a time of the kernel's own.
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); b.listing(t) != want && time.Now().Before(deadline); {
		<-tick.C
	}
	if same(t, b.listing(t), want); text == Listing(t, b.boxes[0].Path) {
		t.Error("the joined sandbox looks like a fresh one")
	}
}

// sandboxMoved joins an endpoint that is in one sandbox to another, as after a container's restart.
func sandboxMoved(t *testing.T, b *bench) {
	b.visit(t, state{present: true}, never)
	empty := Listing(t, b.boxes[0].Path)
	b.visit(t, state{present: true, joined: [2]bool{true, false}}, never)
	inside := Listing(t, b.boxes[0].Path)
	b.join(t, b.Endpoints[0], b.boxes[1])
	same(t, Listing(t, b.boxes[1].Path), inside)
	same(t, Listing(t, b.boxes[0].Path), empty)
	// Another endpoint's interface of the same name is not taken for this one's.
	must(t, b.driver.Leave(context.Background(), b.Network, b.Endpoints[0]))
	twin := b.Endpoints[1]
	twin.Interface = b.Endpoints[0].Interface
	b.join(t, b.Endpoints[0], b.boxes[0])
	b.join(t, twin, b.boxes[1])
	theirs := Listing(t, b.boxes[1].Path)
	if err := b.tryJoin(context.Background(), b.Endpoints[0], b.boxes[1]); !errdefs.IsAlreadyExists(err) {
		t.Errorf("join where the interface is another endpoint's: %v", err)
	}
	same(t, Listing(t, b.boxes[1].Path), theirs)
	same(t, Listing(t, b.boxes[0].Path), empty)
}

// must ends the test at an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// same compares two listings and shows the lines that differ.
func same(t *testing.T, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	g, w := strings.SplitAfter(got, "\n"), strings.SplitAfter(want, "\n")
	var diff strings.Builder
	for _, l := range w {
		if !slices.Contains(g, l) {
			diff.WriteString("- " + l)
		}
	}
	for _, l := range g {
		if !slices.Contains(w, l) {
			diff.WriteString("+ " + l)
		}
	}
	t.Fatalf("the listing differs (- wanted, + got):\n%s\nall of it:\n%s", diff.String(), got)
}
