package main

import (
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/minictl/minictl/testing/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// TestChaos is a short run, of one seed: make chaos is for others.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("whole daemons")
	}
	const seed = 7
	images, err := filepath.Abs("../../bin/images")
	if err != nil {
		t.Fatal(err)
	}
	o := options{hosts: 3, episodes: 2, rounds: 8, images: images, patience: 4 * time.Minute}
	var total counts
	if err := o.play(t.Context(), t, seed, &total); err != nil {
		t.Errorf("seed %d: %v", seed, err)
	}
	t.Logf("seed %d\n%s", seed, total.report())
}

func TestASeedIsAPlan(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		a, b := plan(seed, 3, 4, 12), plan(seed, 3, 4, 12)
		if !reflect.DeepEqual(a, b) {
			t.Fatalf("seed %d: two plans", seed)
		}
	}
	if reflect.DeepEqual(plan(1, 3, 1, 12), plan(2, 3, 1, 12)) {
		t.Error("two seeds, one plan")
	}
	var all string
	for seed := range uint64(50) {
		for _, e := range plan(seed, 3, 4, 12) {
			for _, r := range e.rounds {
				all += r.String()
			}
			if e.membership != nil {
				all += e.membership.String()
			}
		}
	}
	for _, op := range []string{"--ip", opRun, opRemove, opStop, opStart, opRestart, opConnect, opDisconnect, opNetCreate, opNetRemove, opPartition, opIsolate,
		opMute, opLoss, opDropUDP, opDropTCP, opHeal, opKill, opDaemon, opBoot, opPowerCut, opRecover, opLeave, opNodeRm, opLostPower} {
		if !strings.Contains(strings.ToLower(all), op) {
			t.Errorf("nobody ever does %s", op)
		}
	}
}

// TestHistory has calls told in their order, "done" at once unless said otherwise.
func TestHistory(t *testing.T) {
	t.Parallel()
	yes, no, silent := netAnswer{ok: true}, netAnswer{}, netAnswer{unknown: true}
	type said struct {
		op string
		a  netAnswer
	}
	for name, c := range map[string]struct {
		calls []said
		good  bool
	}{
		"in order":               {[]said{{opNetCreate, yes}, {opNetCreate, no}, {opNetRemove, yes}, {opNetRemove, no}, {opList, no}}, true},
		"made twice":             {[]said{{opNetCreate, yes}, {opNetCreate, yes}}, false},
		"lost":                   {[]said{{opNetCreate, yes}, {opList, no}}, false},
		"back again":             {[]said{{opNetRemove, yes}, {opList, yes}}, false},
		"silence, and it was":    {[]said{{opList, no}, {opNetCreate, silent}, {opNetRemove, yes}, {opList, no}}, true},
		"silence, and it wasn't": {[]said{{opList, no}, {opNetCreate, silent}, {opList, no}}, true},
		"silence is no excuse":   {[]said{{opNetCreate, yes}, {opNetCreate, silent}, {opList, no}}, false},
		"in use and gone":        {[]said{{opNetCreate, yes}, {opNetRemove, netAnswer{inUse: true}}, {opList, no}}, false},
	} {
		h := newHistory()
		for i, s := range c.calls {
			done := h.begin(i, "net", s.op)
			done(s.a)
		}
		if err := h.check(time.Minute); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKnown(t *testing.T) {
	t.Parallel()
	b := &box{Name: "/c"}
	b.State.Status = "running"
	b.NetworkSettings.Networks = map[string]endpoint{"net0": {}}
	on := func(n ...string) map[string]bool {
		m := map[string]bool{}
		for _, x := range n {
			m[x] = true
		}
		return m
	}
	for i, c := range []struct {
		k    known
		b    *box
		good bool
	}{
		{known{}, b, true},
		{known{}, nil, true},
		{known{sure: true}, nil, true},
		{known{sure: true}, b, false},
		{known{sure: true, exists: true}, nil, false},
		{known{sure: true, exists: true, nets: on("net0")}, b, false},
		{known{sure: true, exists: true, running: true, nets: on("net0")}, b, true},
		{known{sure: true, exists: true, running: true, nets: on("net1")}, b, false},
	} {
		if err := c.k.check("c", c.b); (err == nil) != c.good {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// TestKnownAfter: what a refused step says of a container, and what it does not.
func TestKnownAfter(t *testing.T) {
	t.Parallel()
	running, stopped := known{sure: true, exists: true, running: true}, known{sure: true, exists: true}
	gone := &refused{code: http.StatusNotFound}
	for _, c := range []struct {
		op    string
		was   known
		err   error
		clear bool
		want  known
	}{
		{opStop, running, nil, true, stopped},
		{opStop, running, gone, true, running},
		{opStart, stopped, nil, true, running},
		{opStart, stopped, gone, true, stopped},
		{opStart, stopped, gone, false, known{exists: true}},
		{opRestart, running, nil, true, running},
		{opRestart, stopped, gone, true, stopped},
		{opRestart, running, gone, true, known{exists: true, running: true}}, // its network was removed meanwhile, say
	} {
		if got := c.was.after(step{op: c.op}, c.err, c.clear); got.sure != c.want.sure || got.exists != c.want.exists || got.running != c.want.running {
			t.Errorf("%s of %+v, %v: %+v, want %+v", c.op, c.was, c.err, got, c.want)
		}
	}
}
