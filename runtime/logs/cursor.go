package logs

import (
	"bytes"
	"errors"
	"io"
	"os"
)

// cursor reads one file line by line. It only ever moves past whole lines, so a
// half-written last one is read again when it is complete.
type cursor struct {
	f      *os.File
	packed bool // f is compressed still
	info   os.FileInfo
	id     fileID
	size   int64  // when it was opened, unpacked
	off    int64  // file offset of buf[0]
	buf    []byte // read, not given out
}

const readSize = 32 << 10

// next gives the next whole line without its newline; nil at the end of what is there.
func (c *cursor) next() ([]byte, error) {
	if err := c.unpack(); err != nil {
		return nil, err
	}
	seen := 0
	for {
		if i := bytes.IndexByte(c.buf[seen:], '\n'); i >= 0 {
			line := c.buf[:seen+i]
			c.buf = c.buf[seen+i+1:]
			c.off += int64(len(line)) + 1
			if len(line) == 0 {
				seen = 0
				continue
			}
			return line, nil
		}
		if len(c.buf) > maxEncoded { // no log of ours: skip it
			c.off += int64(len(c.buf))
			c.buf = c.buf[:0]
		}
		seen = len(c.buf)
		grown := make([]byte, seen+readSize)
		copy(grown, c.buf)
		n, err := c.f.ReadAt(grown[seen:], c.off+int64(seen))
		c.buf = grown[:seen+n]
		if n > 0 {
			continue
		}
		// The writer may take a half line back (disk full): forget it.
		c.buf = nil
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		return nil, err
	}
}

// tail finds where the last lines begin, from the newest file backwards.
type tail struct {
	want    int
	count   int
	started map[string]bool // streams whose newer entries were seen
}

// scan goes backwards through a file. When the tail begins in it, the cursor is
// put there and done is true.
func (t *tail) scan(c *cursor) (done bool, err error) {
	if err := c.unpack(); err != nil {
		return false, err
	}
	end, err := lineEnd(c.f, c.size)
	if err != nil {
		return false, err
	}
	c.off = end
	if t.want == 0 {
		return true, nil
	}
	for end > 0 {
		start, err := lineEnd(c.f, end-1)
		if err != nil {
			return false, err
		}
		line := make([]byte, end-1-start)
		if _, err := c.f.ReadAt(line, start); err != nil {
			return false, err
		}
		if t.begins(line) {
			if t.count == t.want {
				return true, nil
			}
			t.count++
		}
		c.off, end = start, start
	}
	return false, nil
}

// begins says whether a new line is met, going backwards: an entry without a
// newline belongs to the one after it, unless it is its stream's last.
func (t *tail) begins(line []byte) bool {
	e, err := decode(line)
	if err != nil {
		return false
	}
	if t.started == nil {
		t.started = map[string]bool{}
	}
	first := !t.started[e.Stream]
	t.started[e.Stream] = true
	return first || !e.Partial()
}

// lineEnd is the offset behind the last newline in the first size bytes of f; 0 if none.
func lineEnd(f *os.File, size int64) (int64, error) {
	buf := make([]byte, 4<<10)
	for size > 0 {
		n := min(int64(len(buf)), size)
		if _, err := f.ReadAt(buf[:n], size-n); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			return size - n + int64(i) + 1, nil
		}
		size -= n
	}
	return 0, nil
}
