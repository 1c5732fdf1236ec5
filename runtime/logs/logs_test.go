package logs

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)

func newWriter(t *testing.T, dir string, l Limits) *Writer {
	t.Helper()
	w, err := NewWriter(dir, l, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func collect(t *testing.T, dir string, o Options) []Entry {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out []Entry
	for e, err := range Read(ctx, dir, o) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	if ctx.Err() != nil {
		t.Fatal("reader did not end within 10 s")
	}
	return out
}

func text(es []Entry) string {
	var b strings.Builder
	for _, e := range es {
		b.Write(e.Line)
	}
	return b.String()
}

func TestWriteRead(t *testing.T) {
	dir := t.TempDir()
	w := newWriter(t, dir, Limits{})
	w.Write(Stdout, []byte("one\ntw"), t0)
	w.Write(Stderr, []byte("err\n"), t0.Add(time.Second))
	w.Write(Stdout, []byte("o\nend"), t0.Add(2*time.Second))
	w.Close()
	want := `{"log":"one\n","stream":"stdout","time":"2026-01-02T03:04:05.0000006Z"}
{"log":"err\n","stream":"stderr","time":"2026-01-02T03:04:06.0000006Z"}
{"log":"two\n","stream":"stdout","time":"2026-01-02T03:04:05.0000006Z"}
{"log":"end","stream":"stdout","time":"2026-01-02T03:04:07.0000006Z"}
`
	got, err := os.ReadFile(filepath.Join(dir, "json.log"))
	if err != nil || string(got) != want {
		t.Errorf("%v\n got %s\nwant %s", err, got, want)
	}
	es := collect(t, dir, Options{Tail: -1})
	if text(es) != "one\nerr\ntwo\nend" || !es[3].Partial() || es[0].Partial() {
		t.Errorf("read %+v", es)
	}
}

func TestLongLines(t *testing.T) {
	dir := t.TempDir()
	w := newWriter(t, dir, Limits{})
	// Two-byte characters at odd offsets: no split may fall inside one.
	line := "x" + strings.Repeat("ä", 3*MaxLine) + "\n"
	for i := 0; i < len(line); i += 1000 {
		w.Write(Stdout, []byte(line[i:min(i+1000, len(line))]), t0)
	}
	w.Close()
	es := collect(t, dir, Options{Tail: -1})
	if text(es) != line {
		t.Error("line changed")
	}
	for i, e := range es {
		if len(e.Line) > MaxLine || e.Partial() != (i < len(es)-1) {
			t.Errorf("piece %d: %d bytes, partial %v", i, len(e.Line), e.Partial())
		}
	}
	if es := collect(t, dir, Options{Tail: 1}); text(es) != line {
		t.Errorf("tail 1 has %d bytes of the line", len(text(es)))
	}
}

func TestPromptAppears(t *testing.T) {
	dir := t.TempDir()
	w := newWriter(t, dir, Limits{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w.Write(Stdout, []byte("login: "), t0)
	for e, err := range Read(ctx, dir, Options{Tail: -1, Follow: true}) {
		if err != nil || string(e.Line) != "login: " {
			t.Errorf("%q, %v", e.Line, err)
		}
		return
	}
	t.Error("a prompt was held back")
}

func TestTail(t *testing.T) {
	for _, l := range []Limits{{}, {MaxSize: 300, MaxFiles: 50}} {
		dir := t.TempDir()
		w := newWriter(t, dir, l)
		var lines []string
		for i := range 40 {
			line := fmt.Sprintf("line %d %s\n", i, strings.Repeat("z", i*11))
			w.Write(Stdout, []byte(line), t0)
			lines = append(lines, line)
		}
		w.Close()
		for _, n := range []int{-1, 0, 1, 2, 39, 40, 41} {
			want := lines
			if n >= 0 && n < len(lines) {
				want = lines[len(lines)-n:]
			}
			if got := text(collect(t, dir, Options{Tail: n})); got != strings.Join(want, "") {
				t.Errorf("limits %+v, tail %d: %q", l, n, got)
			}
		}
	}
}

func TestSinceUntil(t *testing.T) {
	dir := t.TempDir()
	w := newWriter(t, dir, Limits{})
	for i := range 5 {
		w.Write(Stdout, fmt.Appendf(nil, "%d\n", i), t0.Add(time.Duration(i)*time.Second))
	}
	w.Close()
	if got := text(collect(t, dir, Options{Tail: -1, Since: t0.Add(time.Second), Until: t0.Add(3 * time.Second)})); got != "1\n2\n3\n" {
		t.Errorf("got %q", got)
	}
	// A follower with a bound that passes ends by itself.
	if got := text(collect(t, dir, Options{Tail: -1, Follow: true, Until: time.Now().Add(50 * time.Millisecond)})); got != "0\n1\n2\n3\n4\n" {
		t.Errorf("got %q", got)
	}
}

// TestFollow writes while several read, through rotations and from different
// moments on: everybody sees every line once.
func TestFollow(t *testing.T) {
	for _, l := range []Limits{{}, {MaxSize: 4000, MaxFiles: 1000}, {MaxSize: 12000, MaxFiles: 1000, Compress: true}} {
		dir := filepath.Join(t.TempDir(), "later") // readers may come before the writer
		done := make(chan struct{})
		results := make(chan []Entry)
		for range 4 {
			go func() { results <- collect(t, dir, Options{Tail: -1, Follow: true, Done: done}) }()
		}
		w := newWriter(t, dir, l)
		var want strings.Builder
		for i := range 2000 {
			line := fmt.Sprintf("line %d\n", i)
			want.WriteString(line)
			w.Write(Stdout, []byte(line[:3]), t0)
			w.Write(Stdout, []byte(line[3:]), t0)
			if i == 1000 {
				go func() { results <- collect(t, dir, Options{Tail: -1, Follow: true, Done: done}) }()
			}
		}
		w.Write(Stdout, []byte("last"), t0)
		w.Close()
		close(done)
		for range 5 {
			if got := text(<-results); got != want.String()+"last" {
				t.Errorf("limits %+v: a follower saw %d bytes, want %d", l, len(got), want.Len()+4)
			}
		}
	}
}

// TestIdle: a follower tells when it has given all there is, and only then.
func TestIdle(t *testing.T) {
	dir := t.TempDir()
	w := newWriter(t, dir, Limits{})
	w.Write(Stdout, []byte("one\ntwo\n"), t0)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var given []string
	var idle []string
	o := Options{Tail: -1, Follow: true, Idle: func() {
		if now := strings.Join(given, ""); len(idle) == 0 || idle[len(idle)-1] != now {
			idle = append(idle, now)
			if len(idle) == 1 {
				w.Write(Stdout, []byte("three\n"), t0)
				return
			}
			cancel()
		}
	}}
	for e, err := range Read(ctx, dir, o) {
		if err != nil {
			t.Fatal(err)
		}
		given = append(given, string(e.Line))
	}
	if want := []string{"one\ntwo\n", "one\ntwo\nthree\n"}; !slices.Equal(idle, want) {
		t.Errorf("idle after %q, want %q", idle, want)
	}
}

func TestRotationKeeps(t *testing.T) {
	dir := t.TempDir()
	w := newWriter(t, dir, Limits{MaxSize: 1000, MaxFiles: 3})
	for i := range 200 {
		w.Write(Stdout, fmt.Appendf(nil, "line %d\n", i), t0)
	}
	w.Close()
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(files) != 3 {
		t.Errorf("files %v", files)
	}
	for _, f := range files {
		if fi, _ := os.Stat(f); fi.Size() > 1000 {
			t.Errorf("%s has %d bytes", f, fi.Size())
		}
	}
	if got := text(collect(t, dir, Options{Tail: -1})); !strings.HasSuffix(got, "line 198\nline 199\n") {
		t.Errorf("end of log %q", got)
	}
}

func TestHalfWrittenLine(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, fileName)
	whole := string(appendEntry(nil, Entry{Time: t0, Stream: Stdout, Line: []byte("whole\n")}))
	half := whole[:20]
	if err := os.WriteFile(path, []byte(whole+"rubbish\n"+half), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := text(collect(t, dir, Options{Tail: -1})); got != "whole\n" {
		t.Errorf("read %q", got)
	}
	if got := text(collect(t, dir, Options{Tail: 1})); got != "whole\n" {
		t.Errorf("tail %q", got)
	}
	// The half is completed while a reader follows.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var got []string
	for e, err := range Read(ctx, dir, Options{Tail: -1, Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, string(e.Line)); len(got) == 2 {
			break
		}
		f, _ := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		f.WriteString(whole[20:])
		f.Close()
	}
	if !slices.Equal(got, []string{"whole\n", "whole\n"}) {
		t.Errorf("followed %q", got)
	}
	// A writer that starts again cuts a half line off.
	if err := os.WriteFile(path, []byte(whole+half), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWriter(t, dir, Limits{})
	w.Write(Stdout, []byte("next\n"), t0)
	if got := text(collect(t, dir, Options{Tail: -1})); got != "whole\nnext\n" {
		t.Errorf("after repair %q", got)
	}
}

// TestFullDisk uses a file system of 64 KB: writes fail, then there is room again.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, bytes.Repeat([]byte{1}, 32<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWriter(t, dir, Limits{})
	n := 0
	for ; n < 1000; n++ {
		w.Write(Stdout, fmt.Appendf(nil, "%03d %s\n", n, strings.Repeat("q", 100)), t0)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	w.Write(Stdout, []byte("room again\n"), t0)
	es := collect(t, dir, Options{Tail: -1})
	kept := 0
	for ; kept < len(es) && es[kept].Stream == Stdout; kept++ {
		if want := fmt.Sprintf("%03d ", kept); !strings.HasPrefix(string(es[kept].Line), want) {
			t.Fatalf("entry %d is %q", kept, es[kept].Line)
		}
	}
	note := fmt.Sprintf("minictl: %d log entries lost: no space left on device\n", n-kept)
	if kept == n || kept == 0 || text(es[kept:]) != note+"room again\n" {
		t.Errorf("%d kept, then %q, want %q", kept, text(es[kept:]), note)
	}
}

func TestMissingDirectory(t *testing.T) {
	if es := collect(t, filepath.Join(t.TempDir(), "none"), Options{Tail: -1}); len(es) > 0 {
		t.Errorf("entries %v", es)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"log":"x\n","stream":"stdout","attrs":{"a":"b"},"time":"2026-01-02T03:04:05.6Z"}`))
	f.Add([]byte(`{"log":`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decode(b)
		if err != nil {
			return
		}
		// What was read is written and read again the same.
		again, err := decode(bytes.TrimSuffix(appendEntry(nil, e), []byte{'\n'}))
		if y := e.Time.UTC().Year(); y < 0 || y > 9999 {
			return // JSON has no such time, neither do clocks
		}
		if err != nil || !bytes.Equal(again.Line, e.Line) || !again.Time.Equal(e.Time) {
			t.Errorf("%q: %+v, again %+v, %v", b, e, again, err)
		}
	})
}

// FuzzEncode compares the hand-written encoder with encoding/json.
func FuzzEncode(f *testing.F) {
	f.Add([]byte("a\"\\\x00\x7f\xff\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var got, want string
		if err := json.Unmarshal(appendString(nil, b), &got); err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		j, _ := json.Marshal(string(b))
		if json.Unmarshal(j, &want); got != want {
			t.Errorf("%q: got %q, want %q", b, got, want)
		}
	})
}

// FuzzRead: whatever a log file contains, it is read to its end.
func FuzzRead(f *testing.F) {
	f.Add([]byte("{}\n\n{\"log\":\"x\",\"stream\":\"stdout\"}\n{"), 1)
	f.Fuzz(func(t *testing.T, b []byte, tail int) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fileName), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if n := len(collect(t, dir, Options{Tail: tail})); n > bytes.Count(b, []byte{'\n'}) {
			t.Errorf("%d entries", n)
		}
	})
}

// TestFilesKeepToTheirSize: a burst in one Write is spread over the files like lines that come one by one.
func TestFilesKeepToTheirSize(t *testing.T) {
	dir := t.TempDir()
	w := newWriter(t, dir, Limits{MaxSize: 1000, MaxFiles: 4})
	var burst strings.Builder
	for i := range 500 {
		fmt.Fprintf(&burst, "line %d\n", i)
	}
	w.Write(Stdout, []byte(burst.String()), time.Now())
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 4 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if fi, err := f.Info(); err != nil || fi.Size() > 1000 || f.Name() != fileName && fi.Size() < 900 {
			t.Errorf("%s has %d bytes, %v", f.Name(), fi.Size(), err)
		}
	}
	if got := text(collect(t, dir, Options{Tail: -1})); !strings.HasSuffix(burst.String(), got) || len(got) < 300 {
		t.Errorf("%d bytes that are not the end of what was written", len(got))
	}
}
