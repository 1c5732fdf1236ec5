package raft

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	hraft "github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
)

func openTestLog(t testing.TB, path string) *logStore {
	t.Helper()
	l, err := openLog(path, "n1", func() uint64 { return 0 })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func entries(first, last uint64) []*hraft.Log {
	var all []*hraft.Log
	for i := first; i <= last; i++ {
		all = append(all, &hraft.Log{Index: i, Term: 3, Data: []byte(fmt.Sprintf("entry %d", i)), AppendedAt: time.Unix(0, 12345)})
	}
	return all
}

func (l *logStore) bounds(t testing.TB) string {
	t.Helper()
	first, err1 := l.FirstIndex()
	last, err2 := l.LastIndex()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d-%d", first, last)
}

func TestLogStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	l := openTestLog(t, path)
	if got := l.bounds(t); got != "0-0" {
		t.Errorf("empty log is %s", got)
	}
	if err := l.StoreLogs(entries(1, 300)); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		do   func() error
		want string
	}{
		{func() error { return nil }, "1-300"},
		{func() error { return l.DeleteRange(1, 100) }, "101-300"},
		{func() error { return l.DeleteRange(250, 300) }, "101-249"},
		{func() error { return l.StoreLog(entries(250, 250)[0]) }, "101-250"},
		// A snapshot up to 399 was installed and raft never got to delete.
		{func() error { return l.StoreLogs(entries(400, 401)) }, "400-401"},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if got := l.bounds(t); got != step.want {
			t.Errorf("the log is %s, want %s", got, step.want)
		}
	}
	var got hraft.Log
	if err := l.GetLog(400, &got); err != nil || !reflect.DeepEqual(&got, entries(400, 400)[0]) {
		t.Errorf("entry 400 is %+v, %v", got, err)
	}
	if err := l.GetLog(399, &got); !errors.Is(err, hraft.ErrLogNotFound) {
		t.Errorf("entry 399: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := openTestLog(t, path).bounds(t); got != "400-401" {
		t.Errorf("reopened log is %s", got)
	}
}

func TestStable(t *testing.T) {
	l := openTestLog(t, filepath.Join(t.TempDir(), "raft.db"))
	key := []byte("CurrentTerm")
	if n, err := l.GetUint64(key); n != 0 || err != nil {
		t.Errorf("absent number: %d, %v", n, err)
	}
	if v, err := l.Get(key); len(v) != 0 || err != nil {
		t.Errorf("absent value: %q, %v", v, err)
	}
	if err := errors.Join(l.SetUint64(key, 7), l.Set([]byte("vote"), []byte("n2"))); err != nil {
		t.Fatal(err)
	}
	if n, err := l.GetUint64(key); n != 7 || err != nil {
		t.Errorf("number: %d, %v", n, err)
	}
	if _, err := l.GetUint64([]byte("vote")); !errdefs.IsDataLoss(err) {
		t.Errorf("text as a number: %v", err)
	}
}

// TestApplied: what is handed back is what was known to be agreed on, commands
// only, and knowledge never shrinks.
func TestApplied(t *testing.T) {
	known := uint64(0)
	l, err := openLog(filepath.Join(t.TempDir(), "raft.db"), "n1", func() uint64 { return known })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	all := entries(1, 10)
	all[4].Type = hraft.LogConfiguration
	known = 3
	if err := l.StoreLogs(all); err != nil {
		t.Fatal(err)
	}
	replay := func(first uint64) (got string) {
		if err := l.Applied(first, func(e *hraft.Log) { got += fmt.Sprint(e.Index, " ") }); err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := replay(0); got != "1 2 3 " {
		t.Errorf("replay: %s", got)
	}
	if err := errors.Join(l.SaveApplied(7), l.SaveApplied(6)); err != nil {
		t.Fatal(err)
	}
	if got := replay(2); got != "2 3 4 6 7 " {
		t.Errorf("replay: %s", got)
	}
}

// TestDamagedFile breaks a file in every way that disks and copies do. Open
// must refuse each in a sentence that names the file, and must not crash.
func TestDamagedFile(t *testing.T) {
	good := filepath.Join(t.TempDir(), "raft.db")
	l := openTestLog(t, good)
	if err := errors.Join(l.StoreLogs(entries(1, 500)), l.SetUint64([]byte("CurrentTerm"), 3), l.Close()); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	damage := map[string]func(b []byte) []byte{
		"not a database":     func([]byte) []byte { return bytes.Repeat([]byte("hello "), 4000) },
		"one byte":           func([]byte) []byte { return []byte{0} },
		"half a page":        func(b []byte) []byte { return b[:page/2] },
		"cut in the middle":  func(b []byte) []byte { return b[:len(b)/2/page*page] },
		"only the head":      func(b []byte) []byte { return b[:2*page] },
		"both heads zeroed":  func(b []byte) []byte { clear(b[:2*page]); return b },
		"pages zeroed":       func(b []byte) []byte { clear(b[2*page:]); return b },
		"one bit of a value": func(b []byte) []byte { b[bytes.Index(b, []byte("entry 250"))] ^= 1; return b },
		"a value elsewhere":  func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("entry 251"), []byte("entry 250")) },
	}
	for i := 2; i < len(whole)/page; i++ {
		damage[fmt.Sprintf("page %d is garbage", i)] = func(b []byte) []byte {
			copy(b[i*page:], bytes.Repeat([]byte{0xa5, 0x5a, 0x01}, page/3))
			return b
		}
	}
	refused := 0
	for name, do := range damage {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "raft.db")
			if err := os.WriteFile(path, do(bytes.Clone(whole)), 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := openLog(path, "n1", func() uint64 { return 0 })
			if err == nil {
				// Pages that hold nothing any more may be anything.
				defer l.Close()
				if got := l.bounds(t); got != "1-500" {
					t.Errorf("opened with entries %s", got)
				}
				return
			}
			refused++
			if !errdefs.IsDataLoss(err) || !strings.Contains(err.Error(), path) {
				t.Errorf("refused with: %v", err)
			}
		})
	}
	if refused < 9+3 {
		t.Errorf("only %d of %d kinds of damage were noticed", refused, len(damage))
	}
}

// TestHole: an entry that is missing is damage as well.
func TestHole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	l := openTestLog(t, path)
	err := l.StoreLogs(entries(1, 5))
	err = errors.Join(err, l.db.Update(func(tx *bolt.Tx) error { return bucket(tx, bucketLog).Delete(indexKey(3)) }), l.Close())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openLog(path, "n1", nil); !errdefs.IsDataLoss(err) || !strings.Contains(err.Error(), "entry 4 follows entry 2") {
		t.Errorf("opened with a hole: %v", err)
	}
}

func TestForeignFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "raft.db")
	l := openTestLog(t, path)
	if _, err := openLog(path, "n1", nil); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "another daemon") {
		t.Errorf("opened twice: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := openLog(path, "n2", nil); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), `belongs to node "n1"`) {
		t.Errorf("another node's: %v", err)
	}
	newer := filepath.Join(dir, "newer.db")
	db, err := bolt.Open(newer, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucket([]byte("v2"))
		return err
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := openLog(newer, "n1", nil); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "upgrade minictl") {
		t.Errorf("a newer daemon's: %v", err)
	}
	if _, err := Open(t.Context(), Config{Dir: filepath.Join(path, "x"), NodeID: "n1"}); err == nil {
		t.Error("a directory below a file was opened")
	}
}

// TestDamagedSnapshot: Open refuses a state it cannot read whole.
func TestDamagedSnapshot(t *testing.T) {
	dir := t.TempDir()
	b := openAlone(t, dir)
	mustPut(t, b, "a", "1")
	if err := errors.Join(b.raft.Snapshot().Error(), b.Close()); err != nil {
		t.Fatal(err)
	}
	states, err := filepath.Glob(filepath.Join(dir, "snapshots", "*", "state.bin"))
	if err != nil || len(states) != 1 {
		t.Fatalf("%v %v", states, err)
	}
	whole, err := os.ReadFile(states[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, cut := range []int{0, len(whole) / 2, len(whole) - 1} {
		if err := os.WriteFile(states[0], whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), Config{Dir: dir, NodeID: "n1"}); !errdefs.IsDataLoss(err) {
			t.Errorf("cut to %d of %d bytes: %v", cut, len(whole), err)
		}
	}
}
