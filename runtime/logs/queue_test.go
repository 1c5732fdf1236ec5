package logs

import (
	"strings"
	"testing"
	"time"
)

// TestQueue: with a disk that does not move, a writer goes on, whole lines are kept and whole lines are lost.
func TestQueue(t *testing.T) {
	dir := t.TempDir()
	w := newWriter(t, dir, Limits{})
	w.mu.Lock() // the disk stands still
	q := NewQueue(w, 100)
	q.Write(Stdout, []byte("first\nhalf"), t0)
	q.Write(Stdout, []byte(strings.Repeat("x", 200)), t0) // does not fit: the rest of the line is lost
	q.Write(Stdout, []byte("rest\nlost\n"+strings.Repeat("y", 100)+"\n"), t0)
	q.Write(Stderr, []byte("error\n"), t0)
	w.mu.Unlock()
	awaitEmpty(t, q)
	q.Write(Stdout, []byte("again\n"), t0)
	w.mu.Lock()
	q.Write(Stdout, []byte("last\n"), t0)
	q.Write(Stdout, []byte(strings.Repeat("z", 100)+"\n"), t0)
	w.mu.Unlock()
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q.Write(Stdout, []byte("too late\n"), t0)
	got := text(collect(t, dir, Options{Tail: -1}))
	if want := "first\nhalf\nerror\nminictl: 3 log entries lost: the buffer was full\nagain\nlast\nminictl: 1 log entries lost: the buffer was full\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func awaitEmpty(t *testing.T, q *Queue) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		q.mu.Lock()
		size := q.size
		q.mu.Unlock()
		if size == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the queue does not empty")
		}
	}
}
