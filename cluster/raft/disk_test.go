package raft

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/testing/disk"
)

// smallDisks gives hosts n1 to n3 a disk each, on which there is little room.
func smallDisks(t *testing.T, f *fabric) {
	t.Helper()
	for i := 1; i <= 3; i++ {
		disk.Small(t, filepath.Join(f.dir, fmt.Sprint("n", i)), "size=4m")
	}
}

// fill fills a host's disk.
func (f *fabric) fill(id string) (free func()) { return disk.Fill(f.t, filepath.Join(f.dir, id)) }

// minute bounds a wait.
func minute(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// long is a value that takes pages of its own.
func long(s string) string { return s + strings.Repeat(".", 20_000) }

// apply has raft write a transaction to its log, whether or not there is room for more than removals.
func (f *fabric) apply(b *Backend, t store.Txn) error {
	f.t.Helper()
	cmd, err := encodeCommand(t)
	if err != nil {
		f.t.Fatal(err)
	}
	return b.raft.Apply(cmd, 0).Error()
}

// remove deletes a key.
func remove(key string) store.Txn { return store.Txn{Then: []store.Op{{Key: key, Delete: true}}} }

// TestRemovalOnFullDisks: what is there can be removed and changed as long as it does not grow, by way of any host, also
// when no disk of the cluster has room; what is new is refused, at once, with the file's name.
func TestRemovalOnFullDisks(t *testing.T) {
	for name, voters := range map[string]int{"one voter": 1, "three voters": 3} {
		t.Run(name, func(t *testing.T) {
			checkLeaks(t)
			f := newFabric(t)
			smallDisks(t, f)
			f.grow(3, voters)
			for i := range 100 {
				mustPut(t, f.leader(), fmt.Sprint("old", i), "value")
			}
			mustPut(t, f.leader(), "kept", "something longer")
			for _, id := range f.ids() {
				f.fill(id)
			}
			for i := range 100 {
				b := f.host(f.ids()[i%3])
				key := fmt.Sprint("old", i)
				if _, err := b.Txn(minute(t), put(key, "other")); err != nil {
					t.Fatal(err)
				}
				if _, err := b.Txn(minute(t), remove(key)); err != nil {
					t.Fatal(err)
				}
			}
			var err error
			for i := 0; err == nil && i < 100; i++ { // the first fill what the file has left
				_, err = f.leader().Txn(minute(t), put(fmt.Sprint("new", i), long("")))
			}
			if !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), "raft.db: no space left") {
				t.Errorf("a new key: %v", err)
			}
			mustPut(t, f.leader(), "kept", "shorter")
		})
	}
}

// TestLeaderWithoutRoom: a leader that has no room for more makes way, the others go on, and it follows them again as
// soon as there is room.
func TestLeaderWithoutRoom(t *testing.T) {
	checkLeaks(t)
	f := newFabric(t)
	smallDisks(t, f)
	f.grow(3, 3)
	old := f.leader()
	other := f.host("n1")
	if other == old {
		other = f.host("n2")
	}
	mustPut(t, other, "a", "1")
	free := f.fill(old.node)
	var err error
	for i := range 40 { // the first fill what the file has left, each other one waits for a leader that has room
		if _, err = other.Txn(minute(t), put(fmt.Sprint("b", i), long(""))); err != nil {
			t.Fatalf("with one disk of three full: %v", err)
		}
	}
	if old.IsLeader() || old.Err() != nil {
		t.Errorf("%s leads: %v, %v", old.node, old.IsLeader(), old.Err())
	}
	free()
	last := mustPut(t, other, "c", "3")
	if err := old.WaitApplied(minute(t), uint64(last)); err != nil {
		t.Fatalf("after there was room again: %v", err)
	}
	// It counts again: without it there is no majority once another is gone.
	for _, id := range f.ids() {
		if b := f.host(id); b.IsLeader() {
			f.stop(id)
		}
	}
	if _, err := old.Txn(minute(t), put("d", "4")); err != nil {
		t.Error(err)
	}
}

// TestOnlyVoterWithoutRoom: a host that alone decides says why it cannot, and can when there is room.
func TestOnlyVoterWithoutRoom(t *testing.T) {
	checkLeaks(t)
	f := newFabric(t)
	smallDisks(t, f)
	f.grow(2, 1)
	for _, id := range f.ids() {
		f.leader() // all know it
		free := f.fill("n1")
		b := f.host(id)
		var err error
		for i := 0; err == nil && i < 100; i++ {
			_, err = b.Txn(minute(t), put(fmt.Sprint("b", i), long("")))
		}
		if !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), f.host("n1").logs.path) {
			t.Errorf("on %s, with n1's disk full: %v", id, err)
		}
		n1 := f.host("n1")
		for err = nil; err == nil; {
			err = f.apply(n1, put("b", long(""))) // also what is kept for removals
		}
		if _, err = n1.Txn(minute(t), put("b", long("again"))); !errdefs.IsResourceExhausted(err) {
			t.Errorf("later: %v", err)
		}
		free()
		eventually(t, "it decides when there is room again, after an election at most", func() bool {
			_, err := b.Txn(minute(t), put("b", "2"))
			return err == nil
		})
	}
}

// TestNobodyHasRoom: all disks are full, for longer than elections take; nothing is lost, and all goes on when there is
// room.
func TestNobodyHasRoom(t *testing.T) {
	checkLeaks(t)
	f := newFabric(t)
	smallDisks(t, f)
	f.grow(3, 3)
	mustPut(t, f.leader(), "a", "1")
	old := f.leader()
	term := old.raft.CurrentTerm()
	var room []func()
	for _, id := range f.ids() {
		room = append(room, f.fill(id))
	}
	for old.raft.CurrentTerm() < term+3 { // each time a leader finds no room there is an election
		_ = f.apply(f.leader(), put("b", long("")))
	}
	for _, free := range room {
		free()
	}
	if _, err := f.host("n1").Txn(minute(t), put("c", "3")); err != nil {
		t.Fatal(err)
	}
	if got := value(t, f.leader(), "a"); got != "1" {
		t.Errorf("a=%q", got)
	}
}

// TestDiskLosesWrites: after an fsync has failed the host stops deciding and says which file it is about; the others go on.
func TestDiskLosesWrites(t *testing.T) {
	checkLeaks(t)
	f := newFabric(t)
	fail := map[string]func(){}
	for i := 1; i <= 3; i++ {
		id := fmt.Sprint("n", i)
		fail[id] = disk.Failing(t, filepath.Join(f.dir, id), "16m")
	}
	f.grow(3, 3)
	old := f.leader()
	other := f.host("n1")
	if other == old {
		other = f.host("n2")
	}
	mustPut(t, other, "a", "1")
	fail[old.node]()
	for i := 0; old.Err() == nil; i++ {
		if _, err := other.Txn(minute(t), put("b", long(fmt.Sprint(i)))); err != nil {
			t.Fatalf("with one disk of three broken: %v", err)
		}
	}
	_, err := old.Txn(minute(t), put("c", "1"))
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "write "+old.logs.path) || !strings.Contains(err.Error(), "restart") {
		t.Errorf("on the host itself: %v", err)
	}
	if _, _, err := old.Range(minute(t), "", true); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a fresh read there: %v", err)
	}
	if got := value(t, old, "a"); got != "1" {
		t.Errorf("its replica has a=%q", got)
	}
	if _, err := other.Txn(minute(t), put("c", "2")); err != nil || old.IsLeader() {
		t.Errorf("the others: %v; %s leads: %v", err, old.node, old.IsLeader())
	}
}

// TestOwedTerm: a term that a full disk did not take is there with the vote that follows it.
func TestOwedTerm(t *testing.T) {
	dir := t.TempDir()
	disk.Small(t, dir, "size=1m")
	path := filepath.Join(dir, "raft.db")
	l := openTestLog(t, path)
	if err := l.SetUint64([]byte(keyTerm), 1); err != nil {
		t.Fatal(err)
	}
	free := disk.Fill(t, dir)
	reader, err := l.db.Begin(false) // as long as it lasts, bbolt uses no page again
	if err != nil {
		t.Fatal(err)
	}
	for l.Set([]byte("x"), []byte("y")) == nil { // what the file has left
	}
	if err := l.SetUint64([]byte(keyTerm), 2); err != nil {
		t.Errorf("raft would panic: %v", err)
	}
	if err := l.SetUint64([]byte("LastVoteTerm"), 2); !errdefs.IsResourceExhausted(err) {
		t.Errorf("a vote that is not on disk: %v", err)
	}
	if got, err := l.GetUint64([]byte(keyTerm)); got != 2 || err != nil {
		t.Errorf("term %d, %v", got, err)
	}
	free()
	if err := errors.Join(reader.Rollback(), l.SetUint64([]byte("LastVoteTerm"), 2)); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := openTestLog(t, path).GetUint64([]byte(keyTerm)); got != 2 || err != nil {
		t.Errorf("on disk: term %d, %v", got, err)
	}
}
