package raft

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
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
		disk.Small(t, filepath.Join(f.dir, fmt.Sprint("n", i)), "size=1m")
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

// TestLeaderWithoutRoom: a leader that cannot write its log makes way, the others go on, and it follows them again as
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
	for i := range 10 { // the first fills what the file has left, each other one waits for a leader that has room
		eventually(t, "a leader has room", func() bool { // on a busy machine elections take longer than anybody is kept waiting
			_, err = other.Txn(minute(t), put("b", long(fmt.Sprint(i))))
			return !errdefs.IsUnavailable(err)
		})
		if err != nil {
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

// TestFollowerWithoutRoom: a follower that cannot write what many ask for at once holds up nobody, and follows again as soon
// as there is room.
func TestFollowerWithoutRoom(t *testing.T) {
	checkLeaks(t)
	f := newFabric(t)
	for i := 1; i <= 3; i++ {
		disk.Small(t, filepath.Join(f.dir, fmt.Sprint("n", i)), "size=32m")
	}
	f.grow(3, 3)
	for round := range 4 {
		leader := f.leader()
		full := f.host("n1")
		if full == leader {
			full = f.host("n2")
		}
		free := f.fill(full.node)
		var writers sync.WaitGroup
		for w := range 8 {
			writers.Go(func() {
				for i := range 20 {
					if _, err := f.leader().Txn(minute(t), put(fmt.Sprint(round, w, i), strings.Repeat(".", 6000))); err != nil {
						t.Errorf("with one disk of three full: %v", err)
					}
				}
			})
		}
		writers.Wait()
		free()
		last := mustPut(t, f.leader(), "last", fmt.Sprint(round))
		if err := full.WaitApplied(minute(t), uint64(last)); err != nil {
			t.Fatalf("after there was room again: %v", err)
		}
	}
}

// TestNoRoomHere: that one host has no room is, for whoever asks it from another, one class of error only, so that it is the
// same after the way: try the next leader.
func TestNoRoomHere(t *testing.T) {
	b := openAlone(t, t.TempDir())
	err := b.raftError("apply transaction", fmt.Errorf("write raft.db: %w", errdefs.ErrResourceExhausted))
	if !errdefs.IsUnavailable(err) || errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), b.node) {
		t.Error(err)
	}
}

// TestRemovalOnAFullDisk: on the disk of the host that alone decides there is room to remove all that it was let have, and
// to change it as long as it does not grow.
func TestRemovalOnAFullDisk(t *testing.T) {
	checkLeaks(t)
	f := newFabric(t)
	disk.Small(t, filepath.Join(f.dir, "n1"), "size=8m")
	f.grow(2, 1)
	n1, other := f.host("n1"), f.host("n2")
	for i := range 500 {
		mustPut(t, n1, fmt.Sprint("key", i), "value")
	}
	f.fill("n1")
	last, err := 500, error(nil)
	for ; err == nil && last < 5000; last++ { // the first fill what the file has left
		_, err = other.Txn(minute(t), put(fmt.Sprint("key", last), "value"))
	}
	if !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), n1.logs.path) {
		t.Fatalf("a new key: %v", err)
	}
	for i := range last - 1 {
		key := fmt.Sprint("key", i)
		if i%10 == 0 {
			if _, err := other.Txn(minute(t), put(key, "other")); err != nil {
				t.Fatalf("key %d of %d: %v", i, last, err)
			}
		}
		if _, err := other.Txn(minute(t), store.Txn{Then: []store.Op{{Key: key, Delete: true}}}); err != nil {
			t.Fatalf("key %d of %d: %v", i, last, err)
		}
	}
	if !n1.IsLeader() {
		t.Error("it leads no more")
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
			_, err = b.Txn(minute(t), put("b", long(fmt.Sprint(i)))) // it does not grow, and uses up what is kept for that
		}
		if !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), f.host("n1").logs.path) {
			t.Errorf("on %s, with n1's disk full: %v", id, err)
		}
		_, err = f.host("n1").Txn(minute(t), put("b", long("again")))
		if !errdefs.IsResourceExhausted(err) {
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
	for i := 0; old.raft.CurrentTerm() < term+3; i++ { // each time a leader finds no room there is an election
		soon, cancel := context.WithTimeout(t.Context(), time.Second)
		_, _ = old.Txn(soon, put("b", long(fmt.Sprint(i))))
		cancel()
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
