package ctrd

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	"golang.org/x/sys/unix"

	"github.com/minictl/minictl/runtime/room"
	"github.com/minictl/minictl/testing/images/bake"
)

// zeros never ends.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// bomb is a layer of a few hundred kilobytes with a file of so many MiB in it, whose header says that it is so large.
func bomb(t testing.TB, mib int64) []byte {
	t.Helper()
	var b bytes.Buffer
	g := gzip.NewWriter(&b)
	w := tar.NewWriter(g)
	err := w.WriteHeader(&tar.Header{Name: "zeros", Mode: 0o644, Size: mib << 20})
	if err == nil {
		_, err = io.CopyN(w, zeros{}, mib<<20)
	}
	if err := errors.Join(err, w.Close(), g.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// small makes a runtime believe that its disk has so many MiB beside what is there now.
func small(r *Runtime, mib uint64) (used func() uint64) {
	used = func() (n uint64) {
		_ = filepath.WalkDir(r.cfg.Root, func(_ string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				if i, err := d.Info(); err == nil {
					n += uint64(i.Size())
				}
			}
			return nil
		})
		return n
	}
	before := used()
	r.disk = func() (unix.Statfs_t, error) {
		left := mib<<20 - min(mib<<20, max(used(), before)-before)
		return unix.Statfs_t{Bsize: 1, Blocks: mib << 20, Bavail: left}, nil
	}
	return used
}

// An archive that would fill the disk is refused, however small it is, and nothing of it stays.
func TestBombs(t *testing.T) {
	r := newHost(t).start(t)
	const disk, size = 64, 2048 // MiB
	layer := bomb(t, size)
	used := small(r, disk)
	before := used()
	image := bake.Image{Names: []string{"bomb:1"}, Arch: runtime.GOARCH, Layers: [][]byte{layer}}
	var packed bytes.Buffer
	g := gzip.NewWriter(&packed)
	// In an image's archive the layer may be plain and the archive compressed.
	plainBomb := tar.NewWriter(g)
	err := plainBomb.WriteHeader(&tar.Header{Name: "layer.tar", Mode: 0o644, Size: size << 20})
	if err == nil {
		_, err = io.CopyN(plainBomb, zeros{}, size<<20)
	}
	if err := errors.Join(err, plainBomb.Close(), g.Close()); err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func(context.Context) error{
		"load": func(ctx context.Context) error {
			_, err := r.Load(ctx, saved(t, image), "", new(lines))
			return err
		},
		"load, the archive compressed": func(ctx context.Context) error {
			_, err := r.Load(ctx, bytes.NewReader(packed.Bytes()), "", new(lines))
			return err
		},
		"import": func(ctx context.Context) error {
			_, err := r.Import(ctx, bytes.NewReader(layer), "bomb:2", nil, "", "", new(lines))
			return err
		},
	} {
		if err := do(t.Context()); !errors.Is(err, room.ErrFull) || !strings.Contains(err.Error(), "have to stay so: prune") {
			t.Errorf("%s: %v", name, err)
		}
		if n := used(); n > before+size<<20/2 {
			t.Errorf("%s: %d MiB were written to a disk of %d", name, n>>20, disk)
		}
		eventually(t, name+": nothing stays", func() bool { // containerd collects its garbage a second later
			blobs, layers := stored(t, r)
			return blobs == 0 && layers == 0 && used() < before+8<<20
		})
	}
	// What has room goes in as before.
	if _, err := r.Load(t.Context(), saved(t, tiny(t, runtime.GOARCH, []string{"a:1"}, "one")), "", new(lines)); err != nil {
		t.Error(err)
	}
}

// Archives may be compressed with xz, as docker's clients send them; layers in an image may not.
func TestXz(t *testing.T) {
	r := newHost(t).start(t)
	xz := func(in []byte) []byte {
		t.Helper()
		cmd := exec.Command("xz", "-c")
		cmd.Stdin = bytes.NewReader(in)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal("xz:", err)
		}
		return out
	}
	img := tiny(t, runtime.GOARCH, []string{"a:1"}, "one")
	if got, err := r.Load(t.Context(), bytes.NewReader(xz(saved(t, img).Bytes())), "", new(lines)); err != nil || len(got) != 1 {
		t.Errorf("load: %v, %v", got, err)
	}
	if _, err := r.Import(t.Context(), bytes.NewReader(xz(img.Layers[0])), "b:1", nil, "", "", new(lines)); err != nil {
		t.Errorf("import: %v", err)
	}
	img = tiny(t, runtime.GOARCH, []string{"c:1"}, "two")
	img.Layers[0] = xz(img.Layers[0])
	if _, err := r.Load(t.Context(), saved(t, img), "", new(lines)); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "compressed with xz, but images' layers are plain, gzip or zstd") {
		t.Errorf("load of a layer: %v", err)
	}
	for _, in := range []string{"", "\xfd7zXZ\x00..."} {
		if _, err := r.Import(t.Context(), strings.NewReader(in), "", nil, "", "", new(lines)); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", in, err)
		}
	}
}
