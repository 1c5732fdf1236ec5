// Package storetest is what every store.Store must pass.
//
// A backend's test is one line:
//
//	storetest.Run(t, func(t *testing.T) []store.Store { return open(t) })
//
// The factory returns the hosts of one new, empty, working cluster, one Store
// each; a backend without hosts returns one. Checks spread their calls over
// the hosts, so that the same suite shows what a single one promises and what
// several promise together. The factory cleans up after itself (t.Cleanup).
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/minictl/minictl/cluster/store"
)

// Factory makes the hosts of a new cluster.
type Factory func(t *testing.T) []store.Store

// patience is how long a check waits for what must come. It is generous, for
// it is only ever used up by a failure.
const patience = 20 * time.Second

// Run runs every check against a cluster of its own.
func Run(t *testing.T, factory Factory) {
	for _, c := range []struct {
		name  string
		check func(*testing.T, *hosts)
	}{
		{"Empty", checkEmpty},
		{"PutAndRange", checkPutAndRange},
		{"PrefixIsBytes", checkPrefix},
		{"Get", checkGet},
		{"Conditions", checkConditions},
		{"ConflictChangesNothing", checkConflictChangesNothing},
		{"OpsInOrder", checkOpsInOrder},
		{"DeletePrefix", checkDeletePrefix},
		{"NothingChanged", checkNothingChanged},
		{"IDAppliesOnce", checkID},
		{"Invalid", checkInvalid},
		{"ValuesAreCopied", checkValuesAreCopied},
		{"FreshEverywhere", checkFresh},
		{"ContextEnds", checkContextEnds},
		{"WatchSnapshotThenChanges", checkWatch},
		{"WatchWholeTransactions", checkWatchWhole},
		{"WatchNoGap", checkWatchNoGap},
		{"WatchSlowConsumer", checkWatchSlow},
		{"WatchEnds", checkWatchEnds},
		{"Allocation", checkAllocation},
		{"Linearizable", checkLinearizable},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
			defer cancel()
			c.check(t, &hosts{t: t, ctx: ctx, stores: factory(t)})
		})
	}
}

// hosts are the stores under test and the words that the checks are written in.
type hosts struct {
	t      *testing.T
	ctx    context.Context
	stores []store.Store
	turn   int
}

// next takes the hosts in turns.
func (h *hosts) next() store.Store {
	h.turn++
	return h.stores[h.turn%len(h.stores)]
}

// must applies a transaction that has to succeed.
func (h *hosts) must(t store.Txn) store.Revision {
	h.t.Helper()
	rev, err := h.next().Txn(h.ctx, t)
	if err != nil {
		h.t.Fatalf("txn %+v: %v", t, err)
	}
	return rev
}

func (h *hosts) put(pairs ...string) store.Revision {
	h.t.Helper()
	return h.must(store.Txn{Then: puts(pairs...)})
}

// dump reads everything below prefix from some host as "key=value" lines.
func (h *hosts) dump(prefix string) string {
	h.t.Helper()
	pairs, _, err := h.next().Range(h.ctx, prefix, true)
	if err != nil {
		h.t.Fatalf("range %q: %v", prefix, err)
	}
	return text(pairs)
}

func (h *hosts) want(prefix, want string) {
	h.t.Helper()
	if got := h.dump(prefix); got != want {
		h.t.Fatalf("below %q is %q, want %q", prefix, got, want)
	}
}

func (h *hosts) conflict(t store.Txn, key string, have store.Revision) {
	h.t.Helper()
	_, err := h.next().Txn(h.ctx, t)
	if !errdefs.IsConflict(err) {
		h.t.Fatalf("txn %+v: %v, want a conflict", t, err)
	}
	if !strings.Contains(err.Error(), fmt.Sprintf("%q", key)) {
		h.t.Fatalf("conflict does not name the key %q: %v", key, err)
	}
	var c *store.ConflictError
	if !errors.As(err, &c) || c.Key != key || c.Have != have {
		h.t.Fatalf("conflict is %+v, want key %q at revision %d", c, key, have)
	}
}

func puts(pairs ...string) []store.Op {
	var ops []store.Op
	for _, p := range pairs {
		k, v, _ := strings.Cut(p, "=")
		ops = append(ops, store.Op{Key: k, Value: []byte(v)})
	}
	return ops
}

func text(pairs []store.Pair) string {
	var lines []string
	for _, p := range pairs {
		lines = append(lines, p.Key+"="+string(p.Value))
	}
	return strings.Join(lines, " ")
}

func checkEmpty(t *testing.T, h *hosts) {
	for _, fresh := range []bool{false, true} {
		pairs, rev, err := h.next().Range(h.ctx, "", fresh)
		if err != nil || len(pairs) != 0 || rev != 0 {
			t.Fatalf("range of an empty store, fresh %v: %v, revision %d, %v", fresh, pairs, rev, err)
		}
	}
}

func checkPutAndRange(t *testing.T, h *hosts) {
	r1 := h.put("b=1", "a=2")
	r2 := h.put("c=3")
	r3 := h.put("b=4")
	if !(0 < r1 && r1 < r2 && r2 < r3) {
		t.Fatalf("revisions do not grow: %d %d %d", r1, r2, r3)
	}
	pairs, rev, err := h.next().Range(h.ctx, "", true)
	if err != nil || rev != r3 {
		t.Fatalf("range: revision %d, want %d; %v", rev, r3, err)
	}
	if got := text(pairs); got != "a=2 b=4 c=3" {
		t.Fatalf("range is %q", got)
	}
	for i, want := range []store.Revision{r1, r3, r2} {
		if pairs[i].Rev != want {
			t.Errorf("%s has revision %d, want %d", pairs[i].Key, pairs[i].Rev, want)
		}
	}
}

func checkPrefix(_ *testing.T, h *hosts) {
	h.put("net/a=1", "net/b=2", "net=3", "network/a=4", "nes=5", "neu=6", "net/ä=7", "net/\u00ff=8")
	h.want("net/", "net/a=1 net/b=2 net/ä=7 net/\u00ff=8")
	h.want("net", "net=3 net/a=1 net/b=2 net/ä=7 net/\u00ff=8 network/a=4")
	h.want("nf", "")
	h.want("net/b", "net/b=2")
	h.want("z", "")
}

func checkGet(t *testing.T, h *hosts) {
	rev := h.put("node/a=1", "node/ab=2")
	for _, key := range []string{"node/", "node/abc", "x"} {
		if p, ok, err := store.Get(h.ctx, h.next(), key, true); ok || err != nil {
			t.Fatalf("get %q: %v %v", key, p, err)
		}
	}
	p, ok, err := store.Get(h.ctx, h.next(), "node/a", true)
	if err != nil || !ok || string(p.Value) != "1" || p.Rev != rev {
		t.Fatalf("get: %+v %v %v", p, ok, err)
	}
}

func checkConditions(t *testing.T, h *hosts) {
	absent := store.Txn{If: []store.Cond{{Key: "k"}}, Then: puts("k=1")}
	r1 := h.must(absent)
	h.conflict(absent, "k", r1)
	r2 := h.must(store.Txn{If: []store.Cond{{Key: "k", Rev: r1}}, Then: puts("k=2")})
	h.conflict(store.Txn{If: []store.Cond{{Key: "k", Rev: r1}}, Then: puts("k=3")}, "k", r2)
	// Of several conditions, the first that does not hold is named.
	h.conflict(store.Txn{If: []store.Cond{{Key: "k", Rev: r2}, {Key: "other", Rev: r1}}, Then: puts("k=3")}, "other", 0)
	// Conditions look at the state before the transaction's own changes.
	r3 := h.must(store.Txn{If: []store.Cond{{Key: "k", Rev: r2}}, Then: []store.Op{{Key: "k", Delete: true}}})
	h.conflict(store.Txn{If: []store.Cond{{Key: "k", Rev: r2}}, Then: puts("k=4")}, "k", 0)
	r4 := h.must(absent)
	if r4 <= r3 {
		t.Fatalf("a key made again has revision %d, its deletion %d", r4, r3)
	}
	// Questions only.
	if rev := h.must(store.Txn{If: []store.Cond{{Key: "k", Rev: r4}, {Key: "other"}}}); rev != r4 {
		t.Fatalf("a question answers revision %d, want %d", rev, r4)
	}
	h.conflict(store.Txn{If: []store.Cond{{Key: "k"}}}, "k", r4)
}

func checkConflictChangesNothing(t *testing.T, h *hosts) {
	rev := h.put("a=1", "b=2")
	h.conflict(store.Txn{
		If:   []store.Cond{{Key: "a", Rev: rev}, {Key: "b"}},
		Then: append(puts("a=9", "c=9"), store.Op{Key: "b", Delete: true}),
	}, "b", rev)
	pairs, now, err := h.next().Range(h.ctx, "", true)
	if err != nil || text(pairs) != "a=1 b=2" || now != rev {
		t.Fatalf("after a conflict: %q, revision %d, want %d; %v", text(pairs), now, rev, err)
	}
}

func checkOpsInOrder(_ *testing.T, h *hosts) {
	h.put("a/1=x", "a/2=x", "b=x")
	h.must(store.Txn{Then: []store.Op{
		{Key: "b", Value: []byte("1")},
		{Key: "b", Value: []byte("2")},
		{Key: "c", Value: []byte("1")},
		{Key: "c", Delete: true},
		{Key: "a/", Prefix: true},
		{Key: "a/3", Value: []byte("kept")},
		{Key: "d", Delete: true},
		{Key: "d", Value: []byte("late")},
	}})
	h.want("", "a/3=kept b=2 d=late")
}

func checkDeletePrefix(_ *testing.T, h *hosts) {
	h.put("address/1/a=1", "address/1/b=2", "address/10/a=3", "address/1=4", "b=5")
	h.must(store.Txn{Then: []store.Op{{Key: "address/1/", Prefix: true, Delete: true}}})
	h.want("", "address/1=4 address/10/a=3 b=5")
	h.must(store.Txn{Then: []store.Op{{Key: "address", Prefix: true}}})
	h.want("", "b=5")
	h.must(store.Txn{Then: []store.Op{{Key: "b", Delete: true}}})
	h.want("", "")
}

func checkNothingChanged(t *testing.T, h *hosts) {
	rev := h.put("a=1")
	for name, txn := range map[string]store.Txn{
		"nothing at all":             {},
		"deletion of an absent key":  {Then: []store.Op{{Key: "b", Delete: true}}},
		"deletion of an empty range": {Then: []store.Op{{Key: "b/", Prefix: true}}},
		"come and gone":              {Then: []store.Op{{Key: "b"}, {Key: "b", Delete: true}}},
	} {
		if got := h.must(txn); got != rev {
			t.Errorf("%s: revision %d, want %d", name, got, rev)
		}
	}
	h.want("", "a=1")
}

func checkID(t *testing.T, h *hosts) {
	r0 := h.put("n=0")
	first := store.Txn{ID: store.NewID(), If: []store.Cond{{Key: "n", Rev: r0}}, Then: puts("n=1")}
	r1 := h.must(first)
	for range 2 * len(h.stores) {
		// The condition does not hold any more; the answer is the first one.
		if again := h.must(first); again != r1 {
			t.Fatalf("the same ID was answered %d, then %d", r1, again)
		}
	}
	h.put("n=2")
	h.must(first)
	h.want("n", "n=2")

	// A refusal leaves no trace, not even of the ID.
	refused := store.Txn{ID: store.NewID(), If: []store.Cond{{Key: "gate", Rev: 0}}, Then: puts("gate=mine")}
	gate := h.put("gate=shut")
	h.conflict(refused, "gate", gate)
	h.must(store.Txn{Then: []store.Op{{Key: "gate", Delete: true}}})
	h.must(refused)
	h.want("gate", "gate=mine")
}

func checkInvalid(t *testing.T, h *hosts) {
	big := strings.Repeat("x", store.MaxTxn)
	for name, txn := range map[string]store.Txn{
		"empty key":        {Then: []store.Op{{Value: []byte("1")}}},
		"empty prefix":     {Then: []store.Op{{Prefix: true}}},
		"empty condition":  {If: []store.Cond{{}}},
		"not UTF-8":        {Then: []store.Op{{Key: "a\xff"}}},
		"control":          {Then: []store.Op{{Key: "a\nb"}}},
		"long key":         {Then: []store.Op{{Key: big[:store.MaxKey+1]}}},
		"too much at once": {Then: puts("a="+big[:store.MaxTxn/2], "b="+big[:store.MaxTxn/2])},
		"bad ID":           {ID: "\xff", Then: puts("a=1")},
	} {
		if _, err := h.next().Txn(h.ctx, txn); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v, want invalid argument", name, err)
		}
	}
	h.want("", "")
	h.put(big[:store.MaxKey]+"=1", "v="+big[:store.MaxTxn-store.MaxKey-2])
}

func checkValuesAreCopied(t *testing.T, h *hosts) {
	for _, value := range [][]byte{[]byte("abc"), {0, 0xff, '\n', '"'}, {}, nil} {
		mine := slices.Clone(value)
		h.must(store.Txn{Then: []store.Op{{Key: "k", Value: mine}}})
		for i := range mine {
			mine[i] = 'x'
		}
		p, ok, err := store.Get(h.ctx, h.next(), "k", true)
		if err != nil || !ok || string(p.Value) != string(value) {
			t.Fatalf("value %q came back as %q, %v, %v", value, p.Value, ok, err)
		}
	}
}

func checkFresh(t *testing.T, h *hosts) {
	for i := range 20 {
		want := fmt.Sprint(i)
		writer := h.next()
		rev, err := writer.Txn(h.ctx, store.Txn{Then: puts("k=" + want)})
		if err != nil {
			t.Fatal(err)
		}
		for n, s := range h.stores {
			p, _, err := store.Get(h.ctx, s, "k", true)
			if err != nil || string(p.Value) != want || p.Rev != rev {
				t.Fatalf("host %d reads %q at %d after %q was written at %d: %v", n, p.Value, p.Rev, want, rev, err)
			}
		}
		if p, _, err := store.Get(h.ctx, writer, "k", false); err != nil || string(p.Value) != want {
			t.Fatalf("the writer's own replica has %q, want %q: %v", p.Value, want, err)
		}
	}
}

func checkContextEnds(t *testing.T, h *hosts) {
	h.put("a=1")
	ctx, cancel := context.WithCancel(h.ctx)
	cancel()
	// Whether an ended context stops a transaction is up to the backend; a
	// replica must be read either way.
	pairs, _, err := h.stores[0].Range(ctx, "", false)
	if err != nil {
		t.Fatalf("range of the replica needs no context: %v, %v", pairs, err)
	}
}
