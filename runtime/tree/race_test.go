package tree

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRace swaps a folder for a link that leads out, and back, as fast as it can, while archives come and go through it:
// what docker's cp was once led astray by.
func TestRace(t *testing.T) {
	w := newWorld(t)
	a, b := filepath.Join(w.dir, "swap"), filepath.Join(w.dir, "other")
	if err := os.MkdirAll(filepath.Join(a, "deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../../../../../../../.."+filepath.Dir(w.secret), b); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				stopped <- n
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
				n++
			}
		}
	}()
	tape := archive(t, tar.Header{Name: "secret", Typeflag: tar.TypeReg}, tar.Header{Name: "deep/secret", Typeflag: tar.TypeReg}).Bytes()
	worked := 0
	for range 400 {
		if w.root.Unpack(t.Context(), bytes.NewReader(tape), "swap", UnpackOptions{NoChown: true}) == nil {
			worked++
		}
		var out bytes.Buffer
		_ = w.root.Pack(t.Context(), &out, "swap/secret", PackOptions{Name: "x"})
		if bytes.Contains(out.Bytes(), []byte("secret")) {
			t.Fatal("read what is outside")
		}
		w.unharmed()
	}
	close(stop)
	if n := <-stopped; n < 100 || worked == 0 {
		t.Errorf("%d swaps, %d of 400 archives laid down: no race was tried", n, worked)
	}
}

// FuzzUnpack lays down whatever it is given: nothing outside changes, whatever the archive says.
func FuzzUnpack(f *testing.F) {
	f.Add(archive(f, tar.Header{Name: "../x", Typeflag: tar.TypeReg}).Bytes())
	f.Add(archive(f, tar.Header{Name: "l", Linkname: "../..", Typeflag: tar.TypeSymlink}, tar.Header{Name: "l/secret", Typeflag: tar.TypeReg}).Bytes())
	f.Add(archive(f, tar.Header{Name: "h", Linkname: "up/../../secret", Typeflag: tar.TypeLink}, tar.Header{Name: "h", Typeflag: tar.TypeReg}).Bytes())
	f.Add(archive(f, tar.Header{Name: "up/secret", Typeflag: tar.TypeReg}, tar.Header{Name: "up", Typeflag: tar.TypeDir}).Bytes())
	f.Add([]byte("BZh91AY"))
	f.Add([]byte{0x1f, 0x8b, 8})
	f.Fuzz(func(t *testing.T, tape []byte) {
		if tr := tar.NewReader(bytes.NewReader(tape)); oversized(tr) {
			t.Skip("fills the disk, as it is meant to")
		}
		w := newWorld(t)
		w.link("../../..", "dir/up")
		w.link(filepath.Dir(w.secret), "dir/abs")
		_ = w.root.Unpack(t.Context(), bytes.NewReader(tape), "dir", UnpackOptions{})
		w.unharmed()
		var out bytes.Buffer
		if err := w.root.Pack(t.Context(), &out, "/", PackOptions{Name: "/"}); err != nil {
			t.Errorf("pack what was unpacked: %v", err)
		}
	})
}

// oversized finds sparse entries, of which a few bytes make gigabytes.
func oversized(tr *tar.Reader) bool {
	for {
		h, err := tr.Next()
		if err != nil {
			return false
		}
		if h.Size > 1<<20 {
			return true
		}
	}
}
