package logs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
	"unicode/utf8"
)

// partialDelay is how long the writer waits for the rest of a line: long enough
// that a program's several writes of one line stay one entry, short enough that
// a prompt appears at once.
const partialDelay = 100 * time.Millisecond

// Limits say when a log is rotated.
type Limits struct {
	// MaxSize is the size in bytes at which the file is rotated; 0: never.
	MaxSize int64
	// MaxFiles is how many files are kept, the current one included; less than 2
	// means that rotation empties the file.
	MaxFiles int
	// Compress says that all files but the current one are compressed.
	Compress bool
}

// Writer appends a container's output to the log in one directory. It never
// fails its caller: what cannot be written (disk full) is dropped, counted, and
// reported in the log itself once there is room again.
type Writer struct {
	dir    string
	limits Limits
	attrs  map[string]string // of every entry

	mu      sync.Mutex
	file    *os.File
	size    int64 // up to the end of the last whole entry
	dropped int
	noted   bool // the encoded entries begin with a report of dropped ones
	cause   error
	buf     []byte
	streams map[string]*stream
	closed  bool

	packing sync.WaitGroup // the compression of the newest rotated file
}

// stream assembles one stream's lines.
type stream struct {
	name  string
	held  []byte // start of a line
	since time.Time
	timer *time.Timer // writes held out if nothing follows
}

// NewWriter opens the log in dir, which is made if absent. An entry that a
// power failure cut in half is removed. Each entry is given attrs.
func NewWriter(dir string, l Limits, attrs map[string]string) (*Writer, error) {
	if err := os.MkdirAll(dir, 0o710); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if err := tidy(dir); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	w := &Writer{dir: dir, limits: l, attrs: attrs, streams: map[string]*stream{}}
	if err := w.open(os.O_APPEND); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if err := w.repair(); err != nil {
		w.file.Close()
		return nil, fmt.Errorf("open log: %w", err)
	}
	return w, nil
}

func (w *Writer) open(flag int) error {
	f, err := os.OpenFile(filepath.Join(w.dir, fileName), os.O_CREATE|os.O_RDWR|flag, 0o640)
	if err != nil {
		return err
	}
	w.file, w.size = f, 0
	return nil
}

// repair cuts the file after its last newline.
func (w *Writer) repair() error {
	fi, err := w.file.Stat()
	if err != nil {
		return err
	}
	end, err := lineEnd(w.file, fi.Size())
	if err != nil {
		return err
	}
	w.size = end
	if end == fi.Size() {
		return nil
	}
	return w.file.Truncate(end)
}

// Write takes bytes as they come from a stream. Whole lines are in the file when
// it returns; the start of a line follows within 100 ms.
func (w *Writer) Write(name string, p []byte, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	s := w.stream(name)
	for len(p) > 0 {
		if len(s.held) == 0 {
			s.since = now
		}
		line, rest := cut(p, MaxLine-len(s.held))
		s.held = append(s.held, line...)
		p = rest
		if s.held[len(s.held)-1] == '\n' {
			w.flush(s, len(s.held))
		} else if len(s.held) >= MaxLine {
			w.flush(s, runeEnd(s.held))
		}
	}
	if len(s.held) > 0 {
		s.timer.Reset(partialDelay)
	} else {
		s.timer.Stop()
	}
	w.commit()
}

func (w *Writer) stream(name string) *stream {
	s := w.streams[name]
	if s == nil {
		s = &stream{name: name}
		s.timer = time.AfterFunc(time.Hour, func() { w.flushHeld(s) })
		s.timer.Stop()
		w.streams[name] = s
	}
	return s
}

// cut splits p after its first newline, at most n bytes in.
func cut(p []byte, n int) (line, rest []byte) {
	if len(p) < n {
		n = len(p)
	}
	if i := bytes.IndexByte(p[:n], '\n'); i >= 0 {
		n = i + 1
	}
	return p[:n], p[n:]
}

// runeEnd is the length of b without a character that is cut in half at its end.
func runeEnd(b []byte) int {
	for i := len(b) - 1; i >= 0 && i > len(b)-utf8.UTFMax; i-- {
		if utf8.RuneStart(b[i]) {
			if !utf8.FullRune(b[i:]) {
				return i
			}
			break
		}
	}
	return len(b)
}

// flush encodes the first n held bytes of a stream.
func (w *Writer) flush(s *stream, n int) {
	if n == 0 {
		return
	}
	w.append(Entry{Time: s.since, Stream: s.name, Line: s.held[:n], Attrs: w.attrs})
	s.held = s.held[:copy(s.held, s.held[n:])]
}

// flushHeld writes the start of a line that nothing followed.
func (w *Writer) flushHeld(s *stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	// A character may be cut at a read's border; its rest comes with the next.
	w.flush(s, runeEnd(s.held))
	w.commit()
}

// append encodes an entry behind those of the same Write, so that a burst of
// short lines is one system call.
func (w *Writer) append(e Entry) {
	w.note(e.Time)
	start := len(w.buf)
	w.buf = appendEntry(w.buf, e)
	if limit := w.limits.MaxSize; limit > 0 && start > 0 && w.size+int64(len(w.buf)) > limit {
		last := slices.Clone(w.buf[start:]) // it is the first in the next file
		w.buf = w.buf[:start]
		w.commit()
		w.note(e.Time)
		w.buf = append(w.buf, last...)
	}
	if len(w.buf) >= 4*MaxLine {
		w.commit()
	}
}

// note begins a batch with a report of what was dropped.
func (w *Writer) note(at time.Time) {
	if w.dropped == 0 || len(w.buf) > 0 {
		return
	}
	text := fmt.Sprintf("minictl: %d log entries lost: %v\n", w.dropped, w.cause)
	w.buf = appendEntry(w.buf, Entry{Time: at, Stream: Stderr, Line: []byte(text)})
	w.noted = true
}

// commit writes the encoded entries, or as many of them as there is room for.
func (w *Writer) commit() {
	if len(w.buf) == 0 {
		return
	}
	defer func() { w.buf, w.noted = w.buf[:0], false }()
	if limit := w.limits.MaxSize; limit > 0 && w.size > 0 && w.size+int64(len(w.buf)) > limit {
		if err := w.rotate(); err != nil {
			w.drop(0, err)
			return
		}
	}
	n, err := w.file.Write(w.buf)
	whole := n
	if err != nil { // half an entry would spoil the next: take it back
		whole = bytes.LastIndexByte(w.buf[:n], '\n') + 1
		if whole < n {
			_ = w.file.Truncate(w.size + int64(whole))
		}
	}
	w.size += int64(whole)
	if whole > 0 {
		w.dropped, w.noted = 0, false
	}
	if err != nil {
		w.drop(whole, err)
	}
}

// drop gives up the encoded entries from an offset on.
func (w *Writer) drop(from int, err error) {
	w.dropped += bytes.Count(w.buf[from:], []byte{'\n'})
	if w.noted {
		w.dropped--
	}
	var pe *os.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	w.cause = err
}

// lose counts entries that somebody else had to drop.
func (w *Writer) lose(n int, cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dropped += n
	w.cause = cause
}

// rotate moves json.log to json.log.1 and so on. A reader keeps its open file,
// which is complete by then.
func (w *Writer) rotate() error {
	w.packing.Wait()
	if err := w.shift(); err != nil {
		return err
	}
	old := w.file
	if err := w.open(os.O_APPEND); err != nil {
		return err
	}
	if w.limits.Compress && w.limits.MaxFiles > 1 {
		w.packing.Go(func() {
			_ = compress(filepath.Join(w.dir, numbered(1))) // it is as readable as it was
		})
	}
	return old.Close()
}

// shift gives each file the next name; the last one goes.
func (w *Writer) shift() error {
	last := max(w.limits.MaxFiles-1, 0)
	for _, suffix := range []string{"", gzSuffix} {
		// Readers recognise a new file by its identity, so the old one is not reused.
		if err := os.Remove(filepath.Join(w.dir, numbered(last)+suffix)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		for i := last - 1; i >= 0; i-- {
			err := os.Rename(filepath.Join(w.dir, numbered(i)+suffix), filepath.Join(w.dir, numbered(i+1)+suffix))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// Path is the file that a log's newest entries are in.
func Path(dir string) string { return filepath.Join(dir, fileName) }

// numbered is the name of the i-th file, 0 being the current one.
func numbered(i int) string {
	if i == 0 {
		return fileName
	}
	return fmt.Sprintf("%s.%d", fileName, i)
}

// Close writes what is held and closes the file.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	for _, s := range w.streams {
		s.timer.Stop()
		w.flush(s, len(s.held))
	}
	w.commit()
	w.note(time.Now()) // nothing follows that would bring it
	w.commit()
	w.packing.Wait()
	return w.file.Close()
}
