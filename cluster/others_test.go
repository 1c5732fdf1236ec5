package cluster

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestDaemonAway: the records of a host whose daemon alone is away stay for restartGrace, over restarts of who looks too;
// those of a host that does not answer go within five seconds, and no restart brings them back.
func TestDaemonAway(t *testing.T) {
	t.Parallel()
	dir := memDir(t)
	synctest.Test(t, func(t *testing.T) {
		s := &simulation{t: t, net: newMemNet(), began: time.Now()}
		defer s.closeAll()
		for i := range 3 {
			s.add(dir, 1, i)
		}
		a, b := s.hosts[0], s.hosts[1]
		id := b.up().Self().ID
		soon, cancel := context.WithTimeout(t.Context(), time.Hour) // of the bubble
		defer cancel()
		if missing, err := b.up().Publish(t.Context(), []Record{record("e1", "n", 2)}, nil); err != nil || missing != nil {
			t.Fatal(missing, err)
		}
		shows := func(what string, alive bool) {
			t.Helper()
			got := a.up().Records("n")
			if is := len(got) == 1 && got[0].Alive; is != alive {
				t.Errorf("%s: %+v", what, got)
			}
			st := a.up().Standing()
			heard := slices.ContainsFunc(a.up().live(), func(n Node) bool { return n.ID == id })
			if is := slices.Contains(st.Shown, id); is != (alive && !heard) {
				t.Errorf("%s: heard %v, and of those that are not the names stay of %v", what, heard, st.Shown)
			}
		}
		restart := func(h *simHost) {
			t.Helper()
			s.stop(h)
			if err := h.boot(); err != nil {
				t.Fatal(err)
			}
		}
		restart(b)
		shows("a restart", true)
		pass(restartGrace / 6)
		if err := b.up().CaughtUp(soon); err != nil || len(b.up().live()) != 2 {
			t.Errorf("b after its restart: %v", err)
		}
		s.stop(b)
		pass(restartGrace / 2)
		shows("half the grace", true)
		restart(a)
		shows("the other one restarts meanwhile", true)
		pass(2 * meetGrace)
		shows("soon after", true)
		pass(2 * restartGrace)
		shows("the grace is over", false)
		restart(a)
		shows("a restart does not bring it back", false)
		if err := b.boot(); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Second)
		shows("it is back", true)

		s.cutOff(b, true)
		pass(5 * time.Second)
		shows("the host is silent", false)
		restart(a)
		pass(time.Second)
		shows("the host is silent, and who looks restarts", false)
		s.cutOff(b, false)
		pass(10 * time.Second)
		shows("it is heard again", true)

		s.stop(a)
		s.cutOff(b, true)
		if err := a.boot(); err != nil {
			t.Fatal(err)
		}
		shows("a starts: it was there a moment ago", true)
		pass(5 * time.Second)
		shows("it is not there any more", false)

		s.stop(a)
		s.cutOff(b, false)
		if err := os.WriteFile(files{a.cfg.Dir}.others(), []byte("[{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := a.boot(); err != nil {
			t.Fatal(err)
		}
		if err := a.up().CaughtUp(soon); err != nil {
			t.Error(err)
		}
		shows("the file was damaged", true)

		s.stop(b)
		pass(2 * restartGrace)
		s.stop(a) // it goes down last, and knows that b is not there
		if err := errors.Join(b.boot(), a.boot()); err != nil {
			t.Fatal(err)
		}
		if err := a.up().CaughtUp(soon); err != nil {
			t.Error(err)
		}
		shows("both boot at once", true)
	})
}

// TestDeadBeforeJoining: a host that joins while another is dead is given that one's records with all others', and hears from
// nobody that it is down. They are hidden there, too, until it is back; and what a session that has ended had heard of it
// changes nothing.
func TestDeadBeforeJoining(t *testing.T) {
	t.Parallel()
	dir := memDir(t)
	synctest.Test(t, func(t *testing.T) {
		s := &simulation{t: t, net: newMemNet(), began: time.Now(), did: map[string]int{}}
		defer s.closeAll()
		s.addVoters(dir, 3)
		dies := s.hosts[2]
		if missing, err := dies.up().Publish(t.Context(), []Record{record("e1", "n", 2)}, nil); err != nil || missing != nil {
			t.Fatal(missing, err)
		}
		s.cutOff(dies, true)
		pass(10 * time.Second)
		s.add(dir, 1, 3)
		d := s.hosts[3]
		s.cutOff(dies, true) // from d, too
		shows := func(what string, alive bool) {
			t.Helper()
			got := d.up().Records("n")
			if is := len(got) == 1 && got[0].Alive; is != alive {
				t.Errorf("%s: %+v", what, got)
			}
		}
		pass(5 * time.Second)
		shows("the newcomer", false)
		var wg sync.WaitGroup
		d.up().events.act(t.Context(), &wg, event{up: dies.up().Self().ID})
		wg.Wait()
		shows("heard by an earlier session", false)
		s.cutOff(dies, false)
		pass(time.Minute)
		shows("it is back", true)
	})
}

// TestFasterThanTheSession: a member is heard before this host's session is complete.
func TestFasterThanTheSession(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	if missing, err := a.Publish(t.Context(), []Record{record("e1", "n", 2)}, nil); err != nil || missing != nil {
		t.Fatal(missing, err)
	}
	s := b.session()
	b.mu.Lock()
	b.sess = nil
	b.mu.Unlock()
	b.suspendOthers(t.Context())
	var wg sync.WaitGroup
	b.events.act(t.Context(), &wg, event{up: a.Self().ID})
	wg.Wait()
	b.setSession(s)
	eventually(t, "a's records are shown", func() bool { r := b.Records("n"); return len(r) == 1 && r[0].Alive })
}

// stop ends a daemon in good order, on a host that lives on.
func (s *simulation) stop(h *simHost) {
	s.t.Helper()
	h.mu.Lock()
	c := h.cluster
	h.cluster = nil
	h.mu.Unlock()
	if err := c.Close(); err != nil {
		s.t.Errorf("close %s: %v", h.cfg.Name, err)
	}
}

// pass lets the bubble's time go on.
func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // of the bubble
	synctest.Wait()
}
