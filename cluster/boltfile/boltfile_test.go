package boltfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"

	"github.com/minictl/minictl/testing/disk"
)

func open(t *testing.T, dir string) *DB {
	t.Helper()
	db, err := bolt.Open(filepath.Join(dir, "x.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := New(db)
	t.Cleanup(func() { _ = d.Close() })
	if err := d.put("first"); err != nil {
		t.Fatal(err)
	}
	return d
}

// put adds a key with a value that takes pages of its own.
func (d *DB) put(key string) error {
	return d.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte("b"))
		if err != nil {
			return err
		}
		return b.Put([]byte(key), []byte(strings.Repeat(key, 10_000)))
	})
}

func (d *DB) keys(t *testing.T) (all []string) {
	t.Helper()
	err := d.View(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte("b")).ForEach(func(k, _ []byte) error {
			all = append(all, string(k))
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestRemovalOnAFullDisk: what is new is refused as soon as there is no room for it beside what is kept free; what is there
// can be changed and removed, all of it.
func TestRemovalOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	disk.Small(t, dir, "size=8m")
	d := open(t, dir)
	key := func(i int) []byte { return fmt.Appendf(nil, "key%04d", i) }
	add := func(i int) error {
		return d.Update(func(tx *bolt.Tx) error {
			if err := d.Reserve(tx, 1000); err != nil {
				return err
			}
			return tx.Bucket([]byte("b")).Put(key(i), make([]byte, 1000))
		})
	}
	for i := range 1000 {
		if err := add(i); err != nil {
			t.Fatal(err)
		}
	}
	free := disk.Fill(t, dir)
	n, err := 1000, error(nil)
	for ; err == nil && n < 3000; n++ { // the first fill what the file has left
		err = add(n)
	}
	if !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), "write "+d.Path()) {
		t.Fatalf("on a full disk: %v", err)
	}
	reader, err := d.Begin(false) // as long as it lasts, bbolt uses no page again
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := d.Update(func(tx *bolt.Tx) error { return tx.Bucket([]byte("b")).Delete(key(100 * i)) }); err != nil {
			t.Errorf("beside a reader: %v", err)
		}
	}
	if err := reader.Rollback(); err != nil {
		t.Fatal(err)
	}
	for i := range n - 1 {
		err := d.Update(func(tx *bolt.Tx) error {
			b := tx.Bucket([]byte("b"))
			if err := b.Put(key(i), make([]byte, 999)); err != nil {
				return err
			}
			return b.Delete(key(i))
		})
		if err != nil {
			t.Fatalf("key %d of %d: %v", i, n, err)
		}
	}
	free()
	if err := add(0); err != nil {
		t.Error(err)
	}
}

// TestNoRoom: a file on a full disk stays as it is, and is written to again when there is room.
func TestNoRoom(t *testing.T) {
	dir := t.TempDir()
	disk.Small(t, dir, "size=2m")
	d := open(t, dir)
	free := disk.Fill(t, dir)
	for i := range 20 {
		if err := d.put(fmt.Sprint("second", i)); !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), d.Path()) {
			t.Fatalf("on a full disk: %v", err)
		}
	}
	if got := d.keys(t); len(got) != 1 || d.Err() != nil {
		t.Errorf("%v, %v", got, d.Err())
	}
	free()
	if err := d.put("third"); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if got := open(t, dir).keys(t); len(got) != 2 {
		t.Errorf("after opening it again: %v", got)
	}
}

// TestLostWrite: after one fsync has failed nothing is written any more, although the next would succeed.
func TestLostWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "disk")
	fail := disk.Failing(t, dir, "16m")
	d := open(t, dir)
	fail()
	var err error
	for i := 0; err == nil && i < 1000; i++ {
		err = d.put(fmt.Sprint("more", i))
	}
	if !errdefs.IsDataLoss(err) || !strings.Contains(err.Error(), "write "+d.Path()) || !strings.Contains(err.Error(), "restart") {
		t.Fatalf("on a disk that loses writes: %v", err)
	}
	select {
	case <-d.Lost():
	default:
		t.Error("nobody is told")
	}
	before := d.keys(t)
	if again := d.put("again"); !errors.Is(again, err) {
		t.Errorf("the next write: %v", again)
	}
	if after := d.keys(t); len(after) != len(before) {
		t.Errorf("written after all: %v", after)
	}
}

// TestRefused: what the caller's own function says is no fault of the disk.
func TestRefused(t *testing.T) {
	d := open(t, t.TempDir())
	no := errors.New("no")
	if err := d.Update(func(*bolt.Tx) error { return no }); !errors.Is(err, no) {
		t.Error(err)
	}
	if err := d.put("second"); err != nil {
		t.Error(err)
	}
}

// TestCheck tears, zeroes and cuts every page of a file, as a loss of power may. Either all that counts is there, or Check
// says that it is not; and what Check has seen no fault in opens.
func TestCheck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	// As containerd opens its own.
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoFreelistSync: true})
	if err != nil {
		t.Fatal(err)
	}
	d := New(db)
	for i := range 40 {
		if err := d.Update(func(tx *bolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists(fmt.Append(nil, "bucket", i/10))
			if err != nil {
				return err
			}
			in, err := b.CreateBucket(fmt.Append(nil, "in", i))
			if err != nil {
				return err
			}
			return in.Put([]byte("key"), []byte(strings.Repeat("v", 300)))
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(d.Close(), Check(path)); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	try := func(what string, b []byte) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "x.db") // elsewhere each time: this process may still have half of it mapped
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if Check(path) != nil {
			refused++
			return
		}
		db, err := bolt.Open(path, 0o600, &bolt.Options{NoFreelistSync: true})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		n := 0
		if err := db.View(func(tx *bolt.Tx) error {
			return tx.ForEach(func(_ []byte, b *bolt.Bucket) error {
				return b.ForEachBucket(func(k []byte) error {
					n += len(b.Bucket(k).Get([]byte("key"))) / 300
					return nil
				})
			})
		}); err != nil || n < 39 { // with one of two roots gone, all but the last change is there
			t.Errorf("%s: %d of 40, %v", what, n, err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
	const page = 4096
	for at := 0; at < len(whole); at += page {
		for what, damage := range map[string]func(p []byte){
			"zeroed": func(p []byte) { clear(p) },
			"torn":   func(p []byte) { clear(p[page/2:]) },
			"noise": func(p []byte) {
				for i := range p {
					p[i] ^= 0x5a
				}
			},
			"another's": func(p []byte) { copy(p, whole[3*page:4*page]) },
		} {
			b := slices.Clone(whole)
			damage(b[at : at+page])
			try(fmt.Sprint(what, " ", at/page), b)
		}
		try(fmt.Sprint("cut at ", at/page), whole[:at])
	}
	if refused < 5 {
		t.Errorf("only %d were refused", refused)
	}
	t.Logf("%d refused", refused)
}
