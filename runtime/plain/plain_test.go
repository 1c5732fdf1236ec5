package plain

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// made is a text compressed in each way.
func made(t testing.TB, text string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{"": []byte(text)}
	var g, z bytes.Buffer
	gw := gzip.NewWriter(&g)
	zw, err := zstd.NewWriter(&z)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []io.WriteCloser{gw, zw} {
		_, err := io.WriteString(w, text)
		if err := errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
	}
	out["gzip"], out["zstd"] = g.Bytes(), z.Bytes()
	for _, program := range []string{"xz", "bzip2"} {
		cmd := exec.Command(program, "-c")
		cmd.Stdin = strings.NewReader(text)
		b, err := cmd.Output()
		if errors.Is(err, exec.ErrNotFound) {
			continue // installed where the tests must not skip, see TestOpen
		}
		if err != nil {
			t.Fatal(program, err)
		}
		out[program] = b
	}
	return out
}

func TestOpen(t *testing.T) {
	for _, text := range []string{"x", strings.Repeat("many words ", 1e5)} {
		all := made(t, text)
		if all["xz"] == nil {
			t.Error("no xz: install xz-utils")
		}
		for format, in := range all {
			if got := Format(in); got != format {
				t.Errorf("%s: format %q", format, got)
			}
			r, err := Open(t.Context(), bytes.NewReader(in))
			if err != nil {
				t.Errorf("%s: %v", format, err)
				continue
			}
			got, err := io.ReadAll(r)
			if err := errors.Join(err, r.Close()); err != nil || string(got) != text {
				t.Errorf("%s: %d bytes of %d, %v", format, len(got), len(text), err)
			}
			if format == "" || len(in) < 100 {
				continue
			}
			// Cut off, it is no whole text; closed early, nothing waits.
			r, err = Open(t.Context(), bytes.NewReader(in[:len(in)-20]))
			if err != nil {
				t.Errorf("%s: %v", format, err)
				continue
			}
			if _, err := io.Copy(io.Discard, r); err == nil {
				t.Errorf("%s: cut off, and nobody noticed", format)
			}
			r.Close()
			if r, err = Open(t.Context(), bytes.NewReader(in)); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Read(make([]byte, 1)); err != nil {
				t.Errorf("%s: %v", format, err)
			}
			r.Close()
		}
	}
}

func TestXzIsBounded(t *testing.T) {
	cmd := exec.Command("xz", "-c", "--lzma2=dict=192MiB")
	cmd.Stdin = strings.NewReader(strings.Repeat("x", 1e6))
	in, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(t.Context(), bytes.NewReader(in))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); err == nil {
		t.Error("as much memory as the header wants")
	}
}

func TestXzEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	never, w := io.Pipe()
	defer w.Close()
	r, err := Open(ctx, io.MultiReader(strings.NewReader(magicXz), never))
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	w.CloseWithError(errors.New("gone"))
	if _, err := r.Read(make([]byte, 1)); err == nil {
		t.Error("read from a program that was ended")
	}
	r.Close()
}

func TestWithoutXz(t *testing.T) {
	t.Setenv("PATH", "/nonexistent")
	if _, err := Open(t.Context(), strings.NewReader(magicXz+"...")); !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), "install xz-utils") {
		t.Error(err)
	}
}

// Whatever comes in, Open neither panics nor gives more than is there.
func FuzzOpen(f *testing.F) {
	for format, b := range made(f, "some text") {
		if format != "xz" { // a process for each input would take the fuzzer's time
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if Format(in) == "xz" {
			return
		}
		r, err := Open(t.Context(), bytes.NewReader(in))
		if err != nil {
			return
		}
		defer r.Close()
		got, err := io.Copy(io.Discard, io.LimitReader(r, 1<<20))
		if Format(in) == "" && (err != nil || got != min(int64(len(in)), 1<<20)) {
			t.Errorf("%d bytes of %d, %v", got, len(in), err)
		}
	})
}
