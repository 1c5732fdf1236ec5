package logs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCompressed: rotated files are small and read like any other, whole and from the tail; what a crash leaves is tidied.
func TestCompressed(t *testing.T) {
	dir := t.TempDir()
	limits := Limits{MaxSize: 2000, MaxFiles: 4, Compress: true}
	w := newWriter(t, dir, limits)
	var all strings.Builder
	for i := range 300 {
		line := fmt.Sprintf("line %d\n", i)
		all.WriteString(line)
		w.Write(Stdout, []byte(line), t0)
	}
	w.Close()
	names := func() string {
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, f := range files {
			out = append(out, f.Name())
			if fi, err := f.Info(); err != nil || strings.HasSuffix(f.Name(), gzSuffix) && fi.Size() > 1000 {
				t.Errorf("%s has %d bytes, %v", f.Name(), fi.Size(), err)
			}
		}
		return strings.Join(out, " ")
	}
	const want = "json.log json.log.1.gz json.log.2.gz json.log.3.gz"
	if got := names(); got != want {
		t.Errorf("files %s", got)
	}
	got := text(collect(t, dir, Options{Tail: -1}))
	if !strings.HasSuffix(all.String(), got) || strings.Count(got, "\n") < 70 {
		t.Errorf("%d lines that are not the end of what was written", strings.Count(got, "\n"))
	}
	for _, n := range []int{1, 30, 60} {
		tail := text(collect(t, dir, Options{Tail: n}))
		if !strings.HasSuffix(got, tail) || strings.Count(tail, "\n") != n {
			t.Errorf("the last %d lines: %q", n, tail)
		}
	}
	// A crash between the rename and the removal, and one before.
	packed, err := os.ReadFile(filepath.Join(dir, "json.log.1.gz"))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"json.log.2": []byte("both forms\n"), "json.log.3.gz.tmp": packed[:10]} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	newWriter(t, dir, limits).Close()
	if left := names(); left != want {
		t.Errorf("after a crash: %s", left)
	}
	if again := text(collect(t, dir, Options{Tail: -1})); again != got {
		t.Errorf("after a crash %d bytes, before %d", len(again), len(got))
	}
}

// TestCompressFails: a file that cannot be compressed stays readable.
func TestCompressFails(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "json.log.1.gz.tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "json.log.1"), appendEntry(nil, Entry{Time: t0, Stream: Stdout, Line: []byte("kept\n")}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := compress(filepath.Join(dir, "json.log.1")); err == nil {
		t.Error("no error")
	}
	if got := text(collect(t, dir, Options{Tail: -1})); got != "kept\n" {
		t.Errorf("%q", got)
	}
}

// TestDamagedCompressed: what is no compressed log is an error that names the file.
func TestDamagedCompressed(t *testing.T) {
	for _, content := range [][]byte{nil, []byte("no gzip"), bytes.Repeat([]byte{0x1f, 0x8b}, 100)} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "json.log.1.gz"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		var failed error
		for _, err := range Read(t.Context(), dir, Options{Tail: -1}) {
			failed = err
		}
		if failed == nil || !strings.Contains(failed.Error(), "json.log.1.gz") {
			t.Errorf("%q: %v", content, failed)
		}
	}
}
