package cluster

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/identity"
	"github.com/minictl/minictl/cluster/rpc"
)

// settled waits until nothing is being replaced any more, as every host sees it.
func settled(t *testing.T, hosts ...*host) {
	t.Helper()
	for _, h := range hosts {
		eventually(t, h.cfg.Name+" sees no rotation under way", func() bool {
			under, _, err := h.Rotation(t.Context())
			return err == nil && !under
		})
	}
}

// converse lets every host be heard by all others.
func converse(t *testing.T, hosts ...*host) {
	t.Helper()
	for _, h := range hosts {
		eventually(t, h.cfg.Name+" is heard", func() bool { // again if a busy machine let somebody look dead for a moment
			missing, err := h.Publish(t.Context(), []Record{record("e-"+h.cfg.Name, "n", byte(2+time.Now().Nanosecond()%200))}, nil)
			return err == nil && len(missing) == 0
		})
		put(t, h, "said/"+h.cfg.Name, time.Now().String())
	}
}

func TestPlanRotation(t *testing.T) {
	t.Parallel()
	now := time.Now()
	a, err := identity.NewAuthority("c", now)
	if err != nil {
		t.Fatal(err)
	}
	b, err := identity.NewAuthority("c", now)
	if err != nil {
		t.Fatal(err)
	}
	old, fresh := []byte("old"), []byte("fresh")
	dA, dB := digest(a.Cert.Raw), digest(b.Cert.Raw)
	for _, c := range []struct {
		what  string
		s     secrets
		steps []string
		ready trust // has done what the steps wait for
		late  trust // has not
	}{
		{what: "at rest", s: secrets{keys: [][]byte{old}, ca: a, roots: roots{Roots: [][]byte{a.Cert.Raw}}}},
		{"a key is introduced", secrets{keys: [][]byte{old, fresh}, fresh: digest(fresh), ca: a, roots: roots{Roots: [][]byte{a.Cert.Raw}}},
			[]string{"encrypt with the new gossip key"}, trust{Keys: digests([][]byte{old, fresh})}, trust{Keys: digests([][]byte{old})}},
		{"a key is in use", secrets{keys: [][]byte{fresh, old}, fresh: digest(fresh), ca: a, roots: roots{Roots: [][]byte{a.Cert.Raw}}},
			[]string{"drop the old gossip key"}, trust{Keys: digests([][]byte{fresh, old})}, trust{Keys: digests([][]byte{old, fresh})}},
		{"an authority is introduced", secrets{keys: [][]byte{old}, ca: a, next: b, roots: roots{Roots: [][]byte{a.Cert.Raw, b.Cert.Raw}}},
			[]string{"sign with the new authority"}, trust{Roots: []string{dA, dB}, Issuer: dA}, trust{Roots: []string{dA}, Issuer: dA}},
		{"an authority signs", secrets{keys: [][]byte{old}, ca: b, roots: roots{Roots: [][]byte{a.Cert.Raw, b.Cert.Raw}}},
			[]string{"drop the old authority"}, trust{Issuer: dB}, trust{Roots: []string{dA, dB}, Issuer: dA}},
	} {
		plan := c.s.plan()
		if len(plan) != len(c.steps) || c.s.under() != (len(plan) > 0) {
			t.Errorf("%s: %d steps, want %v", c.what, len(plan), c.steps)
			continue
		}
		for i, ch := range plan {
			if ch.what != c.steps[i] || !ch.has(c.ready) || ch.has(c.late) {
				t.Errorf("%s: %s, ready %v, late %v", c.what, ch.what, ch.has(c.ready), ch.has(c.late))
			}
		}
	}
}

// TestRotation replaces authority, gossip key and tokens after a node was removed, with another one off. Those that are up
// notice nothing; the one that was off comes back by its key; the removed one stays out, whatever it has.
func TestRotation(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	off, gone := newHost(t, "off"), newHost(t, "gone")
	off.join(t, b)
	gone.join(t, a)
	if err := a.Synced(t.Context()); err != nil {
		t.Fatal(err)
	}
	token := a.token(t)
	was, keys := a.session().tr.Credentials().CA, a.snapshotState().Keys
	off.close(t)
	gone.close(t)
	eventually(t, "two are noticed to be off", func() bool { return a.alive() == "a b" && b.alive() == "a b" })
	if err := b.Remove(t.Context(), "gone", false); err != nil {
		t.Fatal(err)
	}
	if err := b.RotateAuthority(t.Context()); err != nil {
		t.Fatal(err)
	}
	for under := true; under; {
		converse(t, a, b)
		if now, _, err := a.Rotation(t.Context()); err == nil { // else nobody could say
			under = now
		}
	}
	settled(t, a, b)
	converse(t, a, b)
	for _, h := range []*host{a, b} {
		eventually(t, h.cfg.Name+" goes by the new authority alone", func() bool {
			cred := h.session().tr.Credentials()
			return !cred.CA.Equal(was) && len(cred.Roots) == 1
		})
		if now := h.snapshotState().Keys; len(now) != 1 || slices.Equal(now[0], keys[0]) {
			t.Errorf("%s has %d gossip keys", h.cfg.Name, len(now))
		}
	}
	newcomer := newHost(t, "newcomer")
	if err := newcomer.Join(t.Context(), newcomer.options(token, a)); !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "minictl cluster token") {
		t.Errorf("a token from before: %v", err)
	}
	newcomer.join(t, b)
	off.open(t)
	eventually(t, "off is back", func() bool { return a.alive() == "a b newcomer off" && off.alive() == "a b newcomer off" })
	converse(t, a, off, newcomer)
	if cred := off.session().tr.Credentials(); cred.CA.Equal(was) || len(cred.Roots) != 1 {
		t.Error("off goes by the old authority")
	}
	off.close(t) // what it was given has been kept
	off.open(t)
	eventually(t, "off is back again", func() bool { return off.alive() == "a b newcomer off" })
	gone.open(t)
	eventually(t, "gone is told", func() bool {
		return strings.Contains(gone.Refused(), "not a member of this cluster, or no longer: run `minictl cluster leave --force`")
	})
	if a.alive() != "a b newcomer off" || gone.alive() != "gone" {
		t.Errorf("a sees %q, gone sees %q", a.alive(), gone.alive())
	}
}

// TestRemoveAlive cuts off a host that will not leave; its vote, names and addresses go, and it hears why.
func TestRemoveAlive(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	if err := b.Remove(t.Context(), "a", true); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "minictl cluster recover") {
		t.Errorf("the only one that decides: %v", err)
	}
	if err := a.Remove(t.Context(), "a", true); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "minictl cluster leave") {
		t.Errorf("itself: %v", err)
	}
	if err := a.Remove(t.Context(), "b", false); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "--force") {
		t.Errorf("alive, not forced: %v", err)
	}
	if _, err := b.Publish(t.Context(), []Record{record("e1", "n", 2)}, nil); err != nil {
		t.Fatal(err)
	}
	before := a.token(t)
	if err := a.Remove(t.Context(), "b", true); err != nil {
		t.Fatal(err)
	}
	if len(a.Members()) != 1 || len(a.decider().Configuration()) != 1 {
		t.Errorf("left of b: %v", names(a.Members()))
	}
	eventually(t, "b's records go", func() bool { return len(a.Records("n")) == 0 })
	if a.token(t) == before {
		t.Error("the token that b has seen is good still")
	}
	eventually(t, "b is told", func() bool { return strings.Contains(b.Refused(), "not a member") })
	if said := b.Refused(); !strings.HasSuffix(said, "and join it again") {
		t.Errorf("what people read ends with an error's class: %s", said)
	}
	settled(t, a)
	if err := b.Leave(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	b.join(t, a)
	converse(t, a, b)
}

// TestFinishRotation is for a member that does not follow: the others go on without it, and it comes after them.
func TestFinishRotation(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	was := b.session().tr.Credentials().CA
	b.op.Lock() // it does not get to it
	if err := a.RotateAuthority(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a waits for b", func() bool {
		under, waiting, err := a.Rotation(t.Context())
		return err == nil && under && slices.Equal(waiting, []string{"b"})
	})
	if err := a.FinishRotation(t.Context()); err != nil {
		t.Fatal(err)
	}
	settled(t, a)
	b.op.Unlock()
	eventually(t, "b follows", func() bool { return !b.session().tr.Credentials().CA.Equal(was) })
	eventually(t, "they talk", func() bool {
		missing, err := b.Publish(t.Context(), []Record{record("e1", "n", byte(2+time.Now().Nanosecond()%200))}, nil)
		return err == nil && len(missing) == 0
	})
}

// TestRenewIsForOneself: a member cannot have another's certificate, nor an authority that is no newer than its own.
func TestRenewIsForOneself(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	csr, err := b.node.Request()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.serveRenew(t.Context(), renewRequest{csr, 0}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("no newer authority: %v", err)
	}
	if err := a.RotateAuthority(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.serveRenew(t.Context(), renewRequest{csr, 0}); !errdefs.IsPermissionDenied(err) {
		t.Errorf("somebody else's certificate: %v", err)
	}
	_, err = rpc.Call[renewRequest, renewReply](t.Context(), b.session().client, string(a.Self().ID), callRenew, renewRequest{csr, 0}, true)
	if err == nil {
		t.Error("served to whoever has a good certificate: that one need not ask")
	}
	if _, err := b.credentialsOf(renewReply{Roots: roots{Generation: 3}}, 3); !errdefs.IsInvalidArgument(err) {
		t.Errorf("an older answer: %v", err)
	}
}

// TestSlept is a laptop's lid closed for a hundred days over running daemons: no timer has fired, the certificates have
// ended. And then one host alone, with its clock.
func TestSlept(t *testing.T) {
	t.Parallel()
	var asleep atomic.Int64
	clock := func() time.Time { return time.Now().Add(time.Duration(asleep.Load())) }
	a, b := newHost(t, "a"), newHost(t, "b")
	for _, h := range []*host{a, b} {
		h.close(t)
		h.cfg.Now = clock
		h.open(t)
	}
	a.init(t)
	b.join(t, a)
	asleep.Store(int64(100 * 24 * time.Hour))
	for _, h := range []*host{a, b} {
		for id := range h.known() {
			h.session().tr.Drop(string(id))
		}
	}
	eventually(t, "they talk", func() bool {
		missing, err := b.Publish(t.Context(), []Record{record("e1", "n", byte(2+time.Now().Nanosecond()%200))}, nil)
		return err == nil && len(missing) == 0
	})
	put(t, b, "x", "1")
	token, _, err := a.Token(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	c := newHost(t, "c") // it lives a hundred days ago
	if err := c.Join(t.Context(), c.options(token, a)); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "set the clocks right") {
		t.Errorf("certificates from the future: %v", err)
	}
	asleep.Add(int64(25 * time.Hour))
	c.close(t)
	c.cfg.Now = clock
	c.open(t)
	if err := c.Join(t.Context(), c.options(token, a)); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "expired 1h0m") {
		t.Errorf("a day later the token admits nobody: %v", err)
	}
	next, _, err := a.Token(t.Context(), false)
	if err != nil || next == token {
		t.Fatalf("the same token: %v", err)
	}
	if err := c.Join(t.Context(), c.options(next, a)); err != nil {
		t.Fatal(err)
	}
}
