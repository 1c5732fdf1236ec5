package logs

import (
	"bytes"
	"errors"
	"sync"
	"time"
)

// Queue is a Writer behind a buffer: who writes never waits for the disk. What does not fit is dropped by the line and
// reported in the log, as a full disk is.
type Queue struct {
	w   *Writer
	max int // bytes

	mu     sync.Mutex
	chunks []chunk
	size   int // of the chunks, in bytes
	lost   int // lines
	lanes  map[string]*lane
	closed bool
	wake   chan struct{}
	done   chan struct{}
}

type chunk struct {
	name string
	text []byte
	at   time.Time
}

// lane is where one stream stands.
type lane struct {
	open     bool // in the middle of a line that is queued
	skipping bool // in the middle of one that is dropped
}

var errFull = errors.New("the buffer was full")

// NewQueue takes w over: Close closes it. max is in bytes.
func NewQueue(w *Writer, max int) *Queue {
	q := &Queue{w: w, max: max, lanes: map[string]*lane{}, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go q.run() // until Close, which waits for it
	return q
}

// Write takes bytes as they come from a stream, and returns at once.
func (q *Queue) Write(name string, p []byte, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lanes[name]
	if l == nil {
		l = &lane{}
		q.lanes[name] = l
	}
	if p = q.skip(l, p); len(p) == 0 || q.closed {
		return
	}
	if q.size > 0 && q.size+len(p) > q.max {
		if l.open { // its rest is lost: what follows is another line
			q.push(chunk{name, []byte{'\n'}, now})
		}
		q.lost += bytes.Count(p, []byte{'\n'})
		l.open, l.skipping = false, p[len(p)-1] != '\n'
		return
	}
	q.push(chunk{name, bytes.Clone(p), now})
	l.open = p[len(p)-1] != '\n'
}

// skip drops what belongs to a line that is dropped.
func (q *Queue) skip(l *lane, p []byte) []byte {
	if !l.skipping {
		return p
	}
	i := bytes.IndexByte(p, '\n')
	if i < 0 {
		return nil
	}
	l.skipping = false
	q.lost++
	return p[i+1:]
}

func (q *Queue) push(c chunk) {
	q.chunks = append(q.chunks, c)
	q.size += len(c.text)
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *Queue) run() {
	defer close(q.done)
	for range q.wake {
		for q.drain() {
		}
		q.mu.Lock()
		closed := q.closed && len(q.chunks) == 0
		q.mu.Unlock()
		if closed {
			return
		}
	}
}

// drain writes what is queued now, then how much did not fit behind it. False when there was nothing.
func (q *Queue) drain() bool {
	q.mu.Lock()
	chunks, lost := q.chunks, q.lost
	q.chunks, q.lost = nil, 0
	q.mu.Unlock()
	for _, c := range chunks {
		q.w.Write(c.name, c.text, c.at)
		q.mu.Lock()
		q.size -= len(c.text)
		q.mu.Unlock()
	}
	if lost > 0 {
		q.w.lose(lost, errFull)
	}
	return len(chunks) > 0 || lost > 0
}

// Close writes what is queued and closes the log.
func (q *Queue) Close() error {
	q.mu.Lock()
	was := q.closed
	q.closed = true
	q.mu.Unlock()
	if !was {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
	<-q.done
	return q.w.Close()
}
