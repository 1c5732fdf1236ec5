package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/identity"
	"github.com/minictl/minictl/cluster/store"
)

func put(t *testing.T, h *host, key, value string) {
	t.Helper()
	if _, err := h.Store().Txn(t.Context(), store.Txn{Then: []store.Op{{Key: key, Value: []byte(value)}}}); err != nil {
		t.Fatalf("%s puts %s: %v", h.cfg.Name, key, err)
	}
}

func has(t *testing.T, h *host, key string, fresh bool) bool {
	t.Helper()
	_, ok, err := store.Get(t.Context(), h.Store(), key, fresh)
	if err != nil {
		t.Fatalf("%s gets %s: %v", h.cfg.Name, key, err)
	}
	return ok
}

func pair(t *testing.T) (a, b *host) {
	t.Helper()
	a, b = newHost(t, "a"), newHost(t, "b")
	a.init(t)
	b.join(t, a)
	if len(a.live()) != 1 { // or what it publishes now would be said to be everywhere, and not be on b
		t.Error("b has joined and is not alive to a")
	}
	return a, b
}

func TestJoinRefused(t *testing.T) {
	t.Parallel()
	a, b, other := newHost(t, "a"), newHost(t, "b"), newHost(t, "other")
	a.init(t)
	other.init(t)
	good := a.token(t)
	parsed, err := identity.ParseToken(good)
	if err != nil {
		t.Fatal(err)
	}
	expired := parsed
	expired.Expires = time.Now().Add(-2 * time.Hour).Truncate(time.Second)
	// The secret has expired in the store, the token's text says otherwise.
	late, err := identity.NewToken(a.session().tr.Credentials().CA, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	value, _ := json.Marshal(tokenValue{Secret: late.Secret, Expires: time.Now().Add(-time.Minute)})
	put(t, a, prefixToken+late.ID(), string(value))
	unknown, err := identity.NewToken(a.session().tr.Credentials().CA, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	nobody := freePort(t).String()
	for name, tc := range map[string]struct {
		token, remote string
		class         func(error) bool
		says          []string
	}{
		"damaged":         {good[:20], a.addr.String(), errdefs.IsInvalidArgument, []string{"not a join token", "minictl cluster token"}},
		"expired":         {expired.String(), a.addr.String(), errdefs.IsFailedPrecondition, []string{"expired 2h0m", "minictl cluster token --rotate"}},
		"expired there":   {late.String(), a.addr.String(), errdefs.IsFailedPrecondition, []string{"expired", "minictl cluster token --rotate"}},
		"replaced":        {unknown.String(), a.addr.String(), errdefs.IsPermissionDenied, []string{"has been replaced", "minictl cluster token"}},
		"foreign":         {good, other.addr.String(), errdefs.IsPermissionDenied, []string{"of another cluster", other.addr.String()}},
		"nobody there":    {good, nobody, errdefs.IsUnavailable, []string{"no member of a cluster answers at " + nobody, "7946"}},
		"no such host":    {good, "no.such.host.invalid", errdefs.IsUnavailable, []string{"no member of a cluster answers at no.such.host.invalid:7946"}},
		"not a cluster's": {good, b.addr.String(), errdefs.IsUnavailable, []string{"no member"}},
	} {
		err := b.Join(t.Context(), JoinOptions{Token: tc.token, Remote: tc.remote, InitOptions: InitOptions{Advertise: b.addr}})
		if err == nil || !tc.class(err) {
			t.Errorf("%s: err = %v", name, err)
			continue
		}
		for _, s := range tc.says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%s: %q does not say %q", name, err, s)
			}
		}
		if strings.Contains(err.Error(), nobody+": dial") {
			t.Errorf("%s: %q names the address again", name, err)
		}
	}
	if b.Clustered() || b.session() != nil || len(a.Members()) != 1 {
		t.Errorf("after refusals: b clustered %v, a has %v", b.Clustered(), names(a.Members()))
	}
	put(t, b, "network/123", `{"Name":"mine"}`)
	err = b.Join(t.Context(), b.options(good, a))
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "minictl network rm mine") {
		t.Errorf("own networks: %v", err)
	}
	err = a.Join(t.Context(), a.options(other.token(t), other))
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "minictl cluster leave") {
		t.Errorf("in a cluster already: %v", err)
	}
}

func TestDuplicateName(t *testing.T) {
	t.Parallel()
	a, b := newHost(t, "a"), newHost(t, "A") // names differ by case only, and DNS names are not told apart by it
	a.init(t)
	id := b.Self().ID
	err := b.Join(t.Context(), b.options(a.token(t), a))
	if !errdefs.IsAlreadyExists(err) || !strings.Contains(err.Error(), "--node-name") || !strings.Contains(err.Error(), a.addr.Addr().String()) {
		t.Fatalf("err = %v", err)
	}
	if b.Clustered() || len(a.Members()) != 1 || b.Self().ID != id {
		t.Error("the refused join left traces")
	}
	put(t, b, "x", "1")
}

func TestTwoJoinsAtOnce(t *testing.T) {
	t.Parallel()
	a := newHost(t, "a")
	a.init(t)
	token := a.token(t)
	hosts := []*host{newHost(t, "b"), newHost(t, "c"), newHost(t, "same"), newHost(t, "same")}
	errs := make(chan error, len(hosts))
	for _, h := range hosts {
		go func() { errs <- h.Join(context.Background(), h.options(token, a)) }()
	}
	taken := 0
	for range hosts {
		if err := <-errs; errdefs.IsAlreadyExists(err) {
			taken++
		} else if err != nil {
			t.Error(err)
		}
	}
	if taken != 1 {
		t.Errorf("%d of two hosts with one name were refused", taken)
	}
	for _, h := range append(hosts, a) {
		if h.Clustered() {
			eventually(t, h.cfg.Name+" sees all", func() bool { return h.alive() == "a b c same" })
		}
	}
}

func TestJoinThroughALearner(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	c := newHost(t, "c")
	if _, err := a.Publish(t.Context(), []Record{record("e1", "n", 2)}, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Join(t.Context(), c.options(b.token(t), b)); err != nil {
		t.Fatal(err)
	}
	if got := c.alive(); got != "a b c" {
		t.Errorf("c sees %q", got)
	}
	if got := c.Records("n"); len(got) != 1 || got[0].Owner != a.Self().ID || !got[0].Alive {
		t.Errorf("c's records: %+v", got)
	}
	if missing, err := c.Publish(t.Context(), []Record{record("e3", "n", 4)}, nil); err != nil || missing != nil {
		t.Errorf("publish right after joining: %v, %v", missing, err)
	}
	if len(a.Records("n")) != 2 || len(b.Records("n")) != 2 {
		t.Errorf("a has %+v, b %+v", a.Records("n"), b.Records("n"))
	}
	eventually(t, "three vote", func() bool {
		n := 0
		for _, m := range a.Members() {
			if m.Voter {
				n++
			}
		}
		return n == 3
	})
}

func TestFailureAndReturn(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	if missing, err := b.Publish(t.Context(), []Record{record("e1", "n", 2)}, nil); err != nil || missing != nil {
		t.Fatal(missing, err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	eventually(t, "a marks b dead", func() bool { return a.alive() == "a" })
	t.Logf("marked dead after %v", time.Since(start))          // the promise, 5 s, is held in gossip's bubbles
	if got := a.Records("n"); len(got) != 1 || !got[0].Alive { // see TestDaemonAway
		t.Errorf("records of a host whose daemon alone is away: %+v", got)
	}
	if missing, err := a.Publish(t.Context(), []Record{record("e2", "n", 3)}, nil); err != nil || missing != nil {
		t.Errorf("publish without the dead: %v, %v", missing, err)
	}
	put(t, a, "network/new", "{}")
	b.open(t)
	eventually(t, "both are up", func() bool { return a.alive() == "a b" && b.alive() == "a b" })
	eventually(t, "records are back on both", func() bool {
		ra, rb := a.Records("n"), b.Records("n")
		return len(ra) == 2 && ra[0].Alive && ra[1].Alive && len(rb) == 2 && rb[0].Alive && rb[1].Alive
	})
	eventually(t, "b's replica caught up", func() bool { return has(t, b, "network/new", false) })
}

func TestRestartAloneWithoutTheLeader(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	put(t, a, "network/n", "{}")
	if err := a.Synced(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, h := range []*host{a, b} {
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
	}
	b.open(t)
	if !b.Clustered() || !has(t, b, "network/n", false) {
		t.Error("the learner forgot what it knew")
	}
	if got := names(b.Members()); strings.Join(got, " ") != "a b" {
		t.Errorf("b knows %v", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := b.Store().Txn(ctx, store.Txn{Then: []store.Op{{Key: "x"}}}); !errdefs.IsUnavailable(err) {
		t.Errorf("write without a leader: %v", err)
	}
	if err := b.Leave(ctx, false); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "--force") || !b.Clustered() {
		t.Errorf("leave unheard: %v", err)
	}
	a.open(t)
	eventually(t, "both found each other", func() bool { return a.alive() == "a b" && b.alive() == "a b" })
	eventually(t, "b writes through a", func() bool {
		_, err := b.Store().Txn(ctx, store.Txn{Then: []store.Op{{Key: "x", Value: []byte("1")}}})
		return err == nil
	})
}

// TestOthersCameWhileAway: of three hosts one sleeps while another is replaced, and the new one leads. Who wakes up knows the
// third host, which knows both, whether or not it can still read its gossip.
func TestOthersCameWhileAway(t *testing.T) {
	t.Parallel()
	for _, rotated := range []bool{false, true} {
		t.Run(fmt.Sprintf("another gossip key %v", rotated), func(t *testing.T) {
			t.Parallel()
			othersCameWhileAway(t, rotated)
		})
	}
}

func othersCameWhileAway(t *testing.T, rotated bool) {
	a, b, c, d := newHost(t, "a"), newHost(t, "b"), newHost(t, "c"), newHost(t, "d")
	a.init(t)
	b.join(t, a)
	c.join(t, a)
	agree(t, a, b, c)
	c.close(t)
	d.join(t, a)
	eventually(t, "b leaves", func() bool { return b.Leave(t.Context(), false) == nil })
	eventually(t, "d leads", func() bool {
		if a.isVoter(d.Self().ID) {
			_ = a.decider().TransferLeadership(t.Context(), string(d.Self().ID)) // tried again
		}
		leader, _ := a.Leader()
		return leader == d.Self().ID
	})
	if rotated {
		key, err := json.Marshal([][]byte{bytes.Repeat([]byte{7}, gossipKeyBytes)})
		if err != nil {
			t.Fatal(err)
		}
		put(t, a, keyGossip, string(key))
	}
	c.open(t)
	agree(t, a, c, d)
}

// TestLeaveThatEndsHalfWay: the leader has dropped a host from those that follow, and nobody has dropped it from the members.
func TestLeaveThatEndsHalfWay(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	if err := a.decider().RemoveNode(t.Context(), string(b.Self().ID)); err != nil {
		t.Fatal(err)
	}
	put(t, a, "network/later", "{}")
	eventually(t, "b follows again", func() bool { return has(t, b, "network/later", false) })
}

// TestRemovedIsTooLate: what a host asks for while the others remove it has happened before that, or not at all.
func TestRemovedIsTooLate(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	id := b.Self().ID
	var asking sync.WaitGroup
	stop := make(chan struct{})
	started := make(chan struct{}, 8)
	for i := range 8 {
		asking.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				key := fmt.Sprintf("address/n/%d-%d", i, n)
				_, err := b.Store().Txn(ctx, store.Txn{If: []store.Cond{{Key: key}}, Then: []store.Op{{Key: key, Value: []byte(`{"node":"` + string(id) + `"}`)}}})
				cancel()
				if n == 0 {
					started <- struct{}{}
				}
				if err != nil {
					return
				}
			}
		})
	}
	for range 8 {
		<-started
	}
	gone, err := a.Store().Txn(t.Context(), store.Txn{Then: []store.Op{{Key: nodeKey(id), Delete: true}}})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "b is not heard any more", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := b.Store().Txn(ctx, store.Txn{Then: []store.Op{{Key: "x"}}})
		return err != nil
	})
	close(stop)
	asking.Wait()
	pairs, _, err := a.Store().Range(t.Context(), "address/n/", true)
	if err != nil || len(pairs) == 0 {
		t.Fatalf("%d pairs, %v", len(pairs), err)
	}
	for _, p := range pairs {
		if p.Rev > gone {
			t.Errorf("%s came in revision %d, the host was no member since %d", p.Key, p.Rev, gone)
		}
	}
}

func TestLearnerLeaves(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	old := b.Self().ID
	put(t, b, "address/n/10.0.0.2", `{"node":"`+string(a.Self().ID)+`"}`)
	put(t, b, "address/n/10.0.0.3", `{"node":"`+string(old)+`"}`)
	if err := PutNodeSpec(t.Context(), a.Store(), old, NodeSpec{Labels: map[string]string{"a": "b"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Publish(t.Context(), []Record{record("e1", "n", 3)}, nil); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := b.Leave(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	t.Logf("left in %v", time.Since(start))
	eventually(t, "a forgets b", func() bool { return len(a.Members()) == 1 && len(a.Records("n")) == 0 })
	if !has(t, a, "address/n/10.0.0.2", true) || has(t, a, "address/n/10.0.0.3", true) {
		t.Error("addresses: the leaver's must go, the others stay")
	}
	if has(t, a, nodeKey(old), true) || has(t, a, nameKey("b"), true) || has(t, a, nodeSpecKey(old), true) {
		t.Error("the node's records are there still")
	}
	if b.Clustered() || b.Self().ID == old || b.ID() == a.ID() || has(t, b, keyCA, false) || len(b.Records("n")) != 0 {
		t.Error("b has kept something")
	}
	put(t, b, "x", "alone again")
	put(t, a, "x", "alone too")
	b.join(t, a) // the name is free
	if got := a.alive(); got != "a b" {
		t.Errorf("after the second join a sees %q", got)
	}
}

func TestLeaderLeaves(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	put(t, a, "network/n", "{}")
	start := time.Now()
	if err := a.Leave(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	t.Logf("left in %v", time.Since(start))
	put(t, b, "y", "1")
	if !has(t, b, "network/n", true) {
		t.Error("what was decided is gone with the leader")
	}
	eventually(t, "b is alone and leads", func() bool {
		m := b.Members()
		return len(m) == 1 && m[0].Leader && m[0].Voter
	})
	if err := b.Leave(t.Context(), false); err != nil { // the last one
		t.Fatal(err)
	}
	if b.Clustered() || has(t, b, "network/n", false) {
		t.Error("the last one kept its cluster")
	}
}

func TestLeaveByForce(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b marks a dead", func() bool { return b.alive() == "b" })
	if err := b.Leave(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	put(t, b, "x", "1")
	a.open(t)
	if got := len(a.Members()); got != 2 {
		t.Errorf("a must still list the one that went without a word, has %d", got)
	}
	if err := b.Join(t.Context(), b.options(a.token(t), a)); !errdefs.IsAlreadyExists(err) || !strings.Contains(err.Error(), "minictl node rm") {
		t.Errorf("its name is taken by its own ghost: %v", err)
	}
	if err := a.Remove(t.Context(), "a", false); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("remove a live node: %v", err)
	}
	if err := a.Remove(t.Context(), "nobody", false); !errdefs.IsNotFound(err) {
		t.Errorf("remove nobody: %v", err)
	}
	if err := a.Remove(t.Context(), "b", false); err != nil {
		t.Fatal(err)
	}
	b.join(t, a)
	if got := a.alive(); got != "a b" {
		t.Errorf("a sees %q", got)
	}
}

func TestFailedJoinLeavesNothing(t *testing.T) {
	t.Parallel()
	a, b := newHost(t, "a"), newHost(t, "b")
	a.init(t)
	put(t, b, "kept", "1")
	taken := a.addr // b cannot listen there
	before := b.ID()
	err := b.Join(t.Context(), JoinOptions{Token: a.token(t), Remote: a.addr.String(), InitOptions: InitOptions{Advertise: taken}})
	if !errdefs.IsUnavailable(err) {
		t.Fatalf("err = %v", err)
	}
	if b.Clustered() || b.ID() != before {
		t.Error("b is half a member")
	}
	put(t, b, "x", "1")
	b.join(t, a)
	if got := a.alive(); got != "a b" {
		t.Errorf("a sees %q", got)
	}
}

func TestAddressComesLate(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	squatter := newHost(t, "squatter") // b's address is not free when its daemon starts
	squatter.addr = b.addr
	squatter.init(t)
	b.open(t)
	if !b.Clustered() || b.session() != nil {
		t.Fatal("b must be a member that does not listen yet")
	}
	if err := squatter.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b is back", func() bool { return a.alive() == "a b" && b.alive() == "a b" })
}

func TestForgedOwner(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	u, _ := b.pub.full(string(b.Self().ID))
	u.Owner = "somebody"
	err := b.push(t.Context(), b.session().client, a.Self().ID, u)
	if !errdefs.IsPermissionDenied(err) {
		t.Errorf("err = %v", err)
	}
}

func TestTokenRotation(t *testing.T) {
	t.Parallel()
	a := newHost(t, "a")
	if _, _, err := a.Token(t.Context(), false); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "minictl cluster init") {
		t.Errorf("token of a host alone: %v", err)
	}
	a.init(t)
	first := a.token(t)
	if again := a.token(t); again != first {
		t.Error("asking changes the token")
	}
	second, _, err := a.Token(t.Context(), true)
	if err != nil || second == first {
		t.Fatalf("rotated: %v", err)
	}
	b := newHost(t, "b")
	if err := b.Join(t.Context(), b.options(first, a)); !errdefs.IsPermissionDenied(err) {
		t.Errorf("the old token: %v", err)
	}
	if err := b.Join(t.Context(), b.options(second, a)); err != nil {
		t.Errorf("the new token: %v", err)
	}
}

func TestInitRefusesAnAddressThatIsNotHere(t *testing.T) {
	t.Parallel()
	a := newHost(t, "a")
	for _, addr := range []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:7946"), {}, netip.MustParseAddrPort("0.0.0.0:7946")} {
		if err := a.Init(t.Context(), InitOptions{Advertise: addr}); err == nil {
			t.Errorf("%v: no error", addr)
		}
	}
	if a.Clustered() {
		t.Fatal("clustered after failures")
	}
	a.init(t)
	if err := a.Init(t.Context(), InitOptions{Advertise: a.addr}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("second init: %v", err)
	}
}

func TestPublishNamesWhoIsMissing(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	gate := make(chan struct{})
	b.Cluster.cfg.Applied = func(context.Context, []string) error { <-gate; return nil }
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	missing, err := a.Publish(ctx, []Record{record("e1", "n", 2)}, nil)
	if err != nil || fmt.Sprint(missing) != "[b]" {
		t.Errorf("missing %v, err %v", missing, err)
	}
	// It is not waited for again, however long one could.
	if missing, err := a.Publish(t.Context(), []Record{record("e2", "n", 3)}, nil); err != nil || fmt.Sprint(missing) != "[b]" {
		t.Errorf("missing %v, err %v", missing, err)
	}
	close(gate)
	eventually(t, "b has both in the end", func() bool { return len(b.Records("n")) == 2 })
	last := byte(4)
	eventually(t, "b is waited for again", func() bool {
		last++
		missing, err := a.Publish(t.Context(), []Record{record("e3", "n", last)}, nil)
		return err == nil && len(missing) == 0
	})
}

func TestErrorsKeepTheirTextOverTheWire(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	_, err := b.Store().Txn(t.Context(), store.Txn{If: []store.Cond{{Key: nodeKey(a.Self().ID), Rev: 0}}, Then: []store.Op{{Key: "x"}}})
	var conflict *store.ConflictError
	if !errors.As(err, &conflict) || conflict.Key != nodeKey(a.Self().ID) || conflict.Have == 0 {
		t.Errorf("err = %v", err)
	}
}

func TestCertificateIsRenewed(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	ca, err := a.authority(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	csr, err := b.node.Request()
	if err != nil {
		t.Fatal(err)
	}
	old, _, err := ca.Sign(csr, time.Now().Add(-120*24*time.Hour)) // switched off for months
	if err != nil {
		t.Fatal(err)
	}
	cred, err := b.node.Credentials(old, ca.Cert.Raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := cred.Save(b.files.identity()); err != nil {
		t.Fatal(err)
	}
	b.open(t)
	eventually(t, "b is back", func() bool { return a.alive() == "a b" && b.alive() == "a b" })
	before := a.session().tr.Credentials()
	if err := a.renewRunning(time.Now().Add(80 * 24 * time.Hour)); err != nil {
		t.Fatal(err)
	}
	if after := a.session().tr.Credentials(); after == before || after.Due(time.Now().Add(80*24*time.Hour)) {
		t.Error("a running daemon's certificate was not renewed")
	}
}

// The last member has nobody who could have forgotten it.
func TestLastMembersInterruptedLeaveIsFinished(t *testing.T) {
	t.Parallel()
	a := newHost(t, "a")
	a.init(t)
	if err := errors.Join(a.setLeaving(true), a.Close()); err != nil {
		t.Fatal(err)
	}
	a.open(t)
	eventually(t, "a is alone", func() bool { return !a.Clustered() })
}

// Whoever cannot note that it leaves has told nobody.
func TestLeaveThatCannotBeNotedTellsNobody(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	good := b.files
	b.mu.Lock()
	b.files = files{dir: t.TempDir() + "/absent"}
	b.mu.Unlock()
	err := b.Leave(t.Context(), false)
	b.mu.Lock()
	b.files = good
	b.mu.Unlock()
	if err == nil {
		t.Fatal("left, and nothing is written down")
	}
	if !has(t, a, nodeKey(b.Self().ID), true) || !b.Clustered() {
		t.Errorf("the others have been told: %v", err)
	}
}

// The answer to the first question may get lost, and whoever asks again is a stranger by then.
func TestLeaveOfANodeThatIsForgottenAlready(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	if err := a.forget(t.Context(), b.Self().ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a does not know b", func() bool { return len(a.known()) == 1 })
	b.session().tr.Drop(string(a.Self().ID))
	if err := b.Leave(t.Context(), false); err != nil {
		t.Errorf("leave: %v", err)
	}
}
