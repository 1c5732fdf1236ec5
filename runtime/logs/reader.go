package logs

import (
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Options select entries of a log.
type Options struct {
	// Since and Until bound Entry.Time, both inclusive; zero: no bound. A
	// follower ends when Until has passed.
	Since, Until time.Time
	// Tail is the number of last lines to begin with: negative all, 0 none.
	Tail int
	// Follow goes on with what is written after the call.
	Follow bool
	// Done, when closed, says that nothing more will be written: a follower
	// reads to the end and stops. Nil: it follows until the context ends.
	Done <-chan struct{}
	// Idle, if set, is called whenever a follower has given all there is and is
	// about to wait. Who collects entries hands them on then.
	Idle func()
}

// Read gives the entries of the log in dir, oldest first. A missing directory is
// an empty log. It ends without an error when the context does.
func Read(ctx context.Context, dir string, o Options) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		r := &reader{dir: dir, opts: o}
		defer r.close()
		if err := r.run(ctx, yield); err != nil {
			yield(Entry{}, err)
		}
	}
}

// reader goes through the files of one log.
type reader struct {
	dir   string
	opts  Options
	files []*cursor // the current one first, newer ones behind it
}

var errStop = errors.New("reader stopped")

func (r *reader) run(ctx context.Context, yield func(Entry, error) bool) error {
	// The watch comes before the first look, so that no write falls in between.
	var wake *waker
	if r.opts.Follow {
		wake = newWaker(r.dir, r.opts.Until)
		defer wake.close()
	}
	if err := r.position(); err != nil {
		return err
	}
	for {
		// Asked before reading: what was written before Done closed is read below.
		last := !r.opts.Follow || wake.over(r.opts.Done)
		err := r.drain(ctx, yield)
		if errors.Is(err, errStop) {
			return nil
		}
		if err != nil || last {
			return err
		}
		if r.opts.Idle != nil {
			r.opts.Idle()
		}
		if !wake.wait(ctx, r.opts.Done) {
			return nil
		}
	}
}

// position opens the files and finds where the tail begins.
func (r *reader) position() error {
	var err error
	if r.files, err = openNewer(r.dir, nil); err != nil {
		return err
	}
	if r.opts.Tail < 0 {
		return nil
	}
	t := tail{want: r.opts.Tail}
	for i := len(r.files) - 1; i >= 0; i-- {
		done, err := t.scan(r.files[i])
		if err != nil {
			return err
		}
		if done {
			for _, c := range r.files[:i] {
				c.f.Close()
			}
			r.files = r.files[i:]
			return nil
		}
		r.files[i].off = 0
	}
	return nil
}

// drain yields everything that is in the files now.
func (r *reader) drain(ctx context.Context, yield func(Entry, error) bool) error {
	for {
		if len(r.files) > 0 {
			if err := r.drainFile(ctx, r.files[0], yield); err != nil {
				return err
			}
		}
		if len(r.files) <= 1 {
			n, err := r.more()
			if err != nil || n == 0 {
				return err
			}
			// A newer file exists, so the present one is complete only now:
			// what came between its last read and the rotation is still in it.
			continue
		}
		r.files[0].f.Close()
		r.files = r.files[1:]
	}
}

// more looks for files newer than the current one.
func (r *reader) more() (int, error) {
	var cur *cursor
	if len(r.files) > 0 {
		cur = r.files[0]
	}
	newer, err := openNewer(r.dir, cur)
	r.files = append(r.files, newer...)
	return len(newer), err
}

func (r *reader) drainFile(ctx context.Context, c *cursor, yield func(Entry, error) bool) error {
	for {
		line, err := c.next()
		if err != nil || line == nil {
			return err
		}
		e, err := decode(line)
		if err != nil {
			continue // a crash of the machine can leave rubbish behind
		}
		if e.Time.Before(r.opts.Since) {
			continue
		}
		if !r.opts.Until.IsZero() && e.Time.After(r.opts.Until) {
			return errStop
		}
		if ctx.Err() != nil || !yield(e, nil) {
			return errStop
		}
	}
}

func (r *reader) close() {
	for _, c := range r.files {
		c.f.Close()
	}
}

// A rotation renames file by file, which a reader may walk into: it looks again, this often and after this long. A gap
// that stays is a crash's, and is passed over.
const (
	lookAgain = 300
	lookPause = time.Millisecond
)

// openNewer opens the files of a log that are newer than cur (nil: all), oldest first, as they are between two rotations.
func openNewer(dir string, cur *cursor) ([]*cursor, error) {
	for try := 0; ; try++ {
		last := try == lookAgain
		found, settled, err := openOnce(dir, cur)
		if err != nil || settled || last {
			return found, err
		}
		for _, c := range found {
			c.f.Close()
		}
		<-time.After(lookPause)
	}
}

// openOnce opens them as they are now, and tells whether no rotation went on meanwhile: the numbers have no gap, and each
// name still leads to the file that was opened.
func openOnce(dir string, cur *cursor) (found []*cursor, settled bool, err error) {
	numbers, err := rotated(dir)
	if err != nil {
		return nil, false, err
	}
	settled = true
	for i, n := range numbers {
		settled = settled && n == i
		c, err := openLog(filepath.Join(dir, numbered(n)))
		if errors.Is(err, os.ErrNotExist) {
			settled = false
			continue
		}
		if err != nil {
			for _, c := range found {
				c.f.Close()
			}
			return nil, false, err
		}
		if cur != nil && cur.id == c.id {
			c.f.Close()
			break
		}
		found = append(found, c)
	}
	for _, c := range found {
		now, err := os.Stat(c.f.Name())
		settled = settled && err == nil && os.SameFile(now, c.info)
	}
	slices.Reverse(found)
	return found, settled, nil
}

// rotated gives the numbers of a log's files, newest (0) first.
func rotated(dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var out []int
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), fileName)
		n := 0
		if ok && rest != "" {
			if n, err = strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(rest, "."), gzSuffix)); err != nil || numbered(n) != strings.TrimSuffix(e.Name(), gzSuffix) {
				continue
			}
		}
		if ok {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil // a file is there in both forms for a moment
}
