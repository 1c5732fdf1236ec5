package cluster

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/transport"
)

// backedUp is what a host's cluster backup holds after it was written down and read.
func backedUp(t *testing.T, h *host) Backup {
	t.Helper()
	b, err := h.Backup(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := b.Write(&file); err != nil {
		t.Fatal(err)
	}
	if b, err = ReadBackup(&file); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRestore loses the disk of the host that decides, and goes on from a backup on another machine at another address. The
// members that are left have gone on as well: nothing of theirs is undone until an operator says so there.
func TestRestore(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	put(t, a, "network/known", `{"Name":"known"}`)
	put(t, a, "address/known/10.0.0.2", `{"node":"`+string(a.Self().ID)+`"}`)
	for i := range 30 { // more than one transaction holds
		put(t, a, "network/big"+strings.Repeat("x", i), strings.Repeat("y", 100_000))
	}
	backup := backedUp(t, a)
	put(t, a, "network/later", `{"Name":"later"}`)
	if err := a.Synced(t.Context()); err != nil {
		t.Fatal(err)
	}
	id, epoch, token := a.Self().ID, a.Epoch(), a.token(t)
	a.close(t)

	again := newHost(t, "elsewhere")
	put(t, again, "network/own", `{"Name":"own"}`)
	o := InitOptions{Advertise: again.addr, MTU: 1400}
	if err := again.Restore(t.Context(), backup, o); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "minictl network rm own") {
		t.Fatalf("networks of its own: %v", err)
	}
	if err := b.Restore(t.Context(), backup, o); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "minictl cluster leave") {
		t.Fatalf("a member: %v", err)
	}
	restored := newHost(t, "elsewhere")
	o.Advertise = restored.addr
	if err := restored.Restore(t.Context(), backup, o); err != nil {
		t.Fatal(err)
	}
	if self := restored.Self(); self.ID != id || self.Name != "a" || self.Addr != restored.addr || self.MTU != 1400 {
		t.Errorf("restored as %+v", self)
	}
	if !strings.HasPrefix(restored.Epoch(), "2.") || restored.ID() != backup.Cluster || !restored.Cautious() {
		t.Errorf("epoch %s of %s, cautious %v", restored.Epoch(), restored.ID(), restored.Cautious())
	}
	if !has(t, restored, "network/known", true) || !has(t, restored, "address/known/10.0.0.2", true) || has(t, restored, "network/later", true) {
		t.Error("the Store is not that of the backup")
	}
	if got := restored.token(t); got == token {
		t.Error("the tokens of the backup are good still")
	}
	if st := restored.Standing(); !slices.Equal(st.Missing, []NodeID{b.Self().ID}) {
		t.Errorf("missing %v", st.Missing)
	}
	restored.close(t)
	restored.open(t)
	for _, h := range []*host{restored, b} {
		eventually(t, h.cfg.Name+" sees the other", func() bool {
			e := h.Estranged()
			return len(e) == 1 && e[0].How == transport.Split
		})
	}
	if !has(t, b, "network/later", false) || b.Epoch() != epoch {
		t.Error("b follows a backup without being told")
	}
	if err := b.Rejoin(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b is back", func() bool { return b.Epoch() == restored.Epoch() && b.alive() == "a b" && restored.alive() == "a b" })
	put(t, b, "x", "1")
	pairs, err := b.Before(t.Context())
	if err != nil || len(pairs) != 1 || pairs[0].Key != "network/later" {
		t.Errorf("before: %v, %v", pairs, err)
	}
	newcomer := newHost(t, "c")
	newcomer.join(t, restored)
	if !has(t, newcomer, "network/known", false) {
		t.Error("a newcomer lacks what was restored")
	}
}

// TestRestoreFails leaves a host alone that can be restored again, after an error and after a crash half way.
func TestRestoreFails(t *testing.T) {
	t.Parallel()
	a := newHost(t, "a")
	if _, err := a.Backup(t.Context()); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "minictl cluster init") {
		t.Fatalf("back up a host alone: %v", err)
	}
	a.init(t)
	backup := backedUp(t, a)
	b := newHost(t, "b")
	if err := b.Restore(t.Context(), backup, InitOptions{Advertise: a.addr}); !errdefs.IsUnavailable(err) {
		t.Fatalf("an address that is in use: %v", err)
	}
	if b.Clustered() || b.session() != nil || b.Self().ID == a.Self().ID || b.Self().Name != "b" {
		t.Errorf("after a failure b is %+v", b.Self())
	}
	put(t, b, "x", "1")
	a.close(t)
	b.close(t)
	// All was written but the last: cluster.json still says that it is under way.
	if _, _, err := backup.identify(b.cfg.Dir+"/identity", time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := (files{b.cfg.Dir}).save(state{Version: stateVersion, Reset: true}); err != nil {
		t.Fatal(err)
	}
	b.open(t)
	if b.Clustered() || b.Self().ID == a.Self().ID {
		t.Errorf("after a crash b is %+v", b.Self())
	}
	if err := b.Restore(t.Context(), backup, InitOptions{Advertise: b.addr}); err != nil {
		t.Fatal(err)
	}
	put(t, b, "x", "1")
}

func TestReadBackup(t *testing.T) {
	t.Parallel()
	a := newHost(t, "a")
	a.init(t)
	good := backedUp(t, a)
	for name, c := range map[string]struct {
		change func(*Backup)
		says   string
		class  func(error) bool
	}{
		"newer":          {func(b *Backup) { b.Version, b.By = 2, "9.0" }, "version 2, written by minictl \"9.0\", and this minictl knows 1; upgrade", errdefs.IsNotImplemented},
		"another file":   {func(b *Backup) { b.Format = "store" }, "not what minictl cluster backup writes", errdefs.IsInvalidArgument},
		"another's key":  {func(b *Backup) { b.Self.ID = "x" }, "holds the key of node", errdefs.IsInvalidArgument},
		"no key":         {func(b *Backup) { b.Key = nil }, "node key", errdefs.IsInvalidArgument},
		"no epoch":       {func(b *Backup) { b.Epoch = "" }, "no cluster or epoch", errdefs.IsInvalidArgument},
		"no authority":   {func(b *Backup) { b.Pairs = nil }, "authority", errdefs.IsInvalidArgument},
		"impossible key": {func(b *Backup) { b.Pairs = append(b.Pairs, backupPair{"", nil}) }, "empty key", errdefs.IsInvalidArgument},
	} {
		b := good
		b.Pairs = slices.Clone(good.Pairs)
		c.change(&b)
		var file bytes.Buffer
		if err := b.Write(&file); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadBackup(&file); err == nil || !c.class(err) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzReadBackup(f *testing.F) {
	f.Add([]byte(`{"format":"minictl cluster backup","version":1,"pairs":[{"k":"ca","v":"e30="}]}`))
	dir := f.TempDir()
	c, err := Open(f.Context(), Config{Dir: dir, Name: "a"})
	if err != nil {
		f.Fatal(err)
	}
	defer c.Close()
	ca, err := json.Marshal(Backup{Format: backupFormat, Version: backupVersion, Self: c.Self()})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ca)
	if b, err := os.ReadFile(dir + "/cluster.json"); err == nil {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := ReadBackup(bytes.NewReader(raw))
		if err == nil && (b.check() != nil || len(b.nodes(b.Self)) == 0) {
			t.Fatalf("accepted %q", raw)
		}
	})
}
