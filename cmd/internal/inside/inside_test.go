package inside

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/klauspost/compress/zstd"

	"github.com/minictl/minictl/testing/disk"
)

const (
	content = "#!/bin/sh\necho the daemon\n"
	sum     = "f1d4e0d3f8f5b0c1f1d4e0d3f8f5b0c1f1d4e0d3f8f5b0c1f1d4e0d3f8f5b0c1"
)

func carried(t *testing.T) program {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return program{compressed: z.EncodeAll([]byte(content), nil), sum: sum, size: int64(len(content))}
}

func TestKeep(t *testing.T) {
	p, dir := carried(t), filepath.Join(t.TempDir(), "programs")
	old := filepath.Join(dir, "0123456789abcdef", name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(old), 0o700), os.WriteFile(old, nil, 0o700)); err != nil {
		t.Fatal(err)
	}
	path, err := p.keep(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); string(got) != content {
		t.Errorf("unpacked %q, %v", got, err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o700 {
		t.Errorf("mode: %v, %v", st, err)
	}
	if want := filepath.Join(dir, sum[:16], "minictl"); path != want {
		t.Errorf("path %q, want %q", path, want)
	}
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the older program: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*", ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}

	// What is there is not written again; what lacks its content is.
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.keep(dir); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("unpacked again: %v", err)
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := p.keep(dir); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); string(got) != content {
		t.Errorf("after the loss of its content: %q, %v", got, err)
	}
}

// A damaged program is not left where it would be run.
func TestKeepDamaged(t *testing.T) {
	whole := carried(t)
	for what, p := range map[string]program{
		"cut":       {whole.compressed[:len(whole.compressed)-3], sum, whole.size},
		"too short": {whole.compressed, sum, whole.size + 1},
		"no zstd":   {[]byte("nonsense"), sum, whole.size},
	} {
		dir := t.TempDir()
		if _, err := p.keep(dir); err == nil {
			t.Errorf("%s: no error", what)
		}
		left, err := filepath.Glob(filepath.Join(dir, "*", "*"))
		if err != nil || len(left) > 0 {
			t.Errorf("%s: left behind: %q, %v", what, left, err)
		}
	}
}

// TestOlderProgramThatStays: one that cannot be removed, here because something is mounted there, keeps no daemon from
// starting.
func TestOlderProgramThatStays(t *testing.T) {
	p, dir := carried(t), filepath.Join(t.TempDir(), "programs")
	disk.Small(t, filepath.Join(dir, "0123456789abcdef"), "size=64k")
	if path, err := p.keep(dir); err != nil {
		t.Errorf("%q: %v", path, err)
	}
}

func TestLoad(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	p, err := load(fstest.MapFS{"daemon.zst": file("packed"), "daemon.facts": file(sum + " 17\n")})
	if err != nil || string(p.compressed) != "packed" || p.sum != sum || p.size != 17 {
		t.Errorf("got %+v, %v", p, err)
	}
	for _, from := range []fstest.MapFS{{}, {"daemon.facts": file(sum + " 17\n")}} {
		if _, err := load(from); !errors.Is(err, ErrMissing) {
			t.Errorf("%v: %v", from, err)
		}
	}
	for _, facts := range []string{"", "17\n", "abc 17\n", sum + "\n", sum + " x\n"} {
		_, err := load(fstest.MapFS{"daemon.zst": file("packed"), "daemon.facts": file(facts)})
		if err == nil || !strings.Contains(err.Error(), "want a checksum and a size") {
			t.Errorf("%q: %v", facts, err)
		}
	}
}

func TestPlace(t *testing.T) {
	for args, want := range map[string]string{
		"minictl daemon": programs, "minictl daemon --data-root /x -H unix:///y": programs,
		"minictl help daemon": "", "minictl daemon --help": "", "minictl daemon --cleanup --purge": "",
		"minictl daemon --config-file /x --validate": "", "minictl __complete daemon --": "",
	} {
		if got := place(strings.Fields(args)); got != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
}
