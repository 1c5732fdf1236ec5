package engine

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/cmd/internal/filters"
	"github.com/minictl/minictl/runtime/container"
	"github.com/minictl/minictl/runtime/logs"
)

// ContainerLogs writes a container's output as the Engine API frames it: raw with a TTY, multiplexed without.
func (e *Engine) ContainerLogs(ctx context.Context, ref string, o api.LogsOptions, w io.Writer) error {
	b, err := e.find(ref)
	if err != nil {
		return err
	}
	spec := b.specCopy()
	if !o.Stdout && !o.Stderr {
		return invalid("Bad parameters: you must choose at least one stream")
	}
	if spec.HostConfig.LogConfig.Type == container.LogNone {
		return unsupported("configured logging driver does not support reading")
	}
	opts, err := logOptions(o)
	if err != nil {
		return err
	}
	b.mu.Lock()
	opts.Done = b.gone
	b.mu.Unlock()
	opts.Follow = o.Follow && opts.Done != nil
	f := framer{tty: spec.Config.Tty, stamps: o.Timestamps, details: o.Details, goesOn: map[string]bool{}}
	// Every write to the client is a system call here and one there, so lines go together as long as there are more.
	out := bufio.NewWriterSize(w, logBuffer)
	opts.Idle = func() { _ = out.Flush() } // the next write has the error too
	for entry, err := range logs.Read(ctx, e.logDir(b.id), opts) {
		if err != nil {
			_ = out.Flush() // what was read is the client's, and then the reason why there is no more
			return err
		}
		if entry.Stream == "stdout" && !o.Stdout || entry.Stream == "stderr" && !o.Stderr {
			continue
		}
		if err := f.write(out, entry); err != nil {
			return err
		}
	}
	return out.Flush()
}

// logBuffer is how many bytes of log lines go to a client at once, if there are so many.
const logBuffer = 32 << 10

func logOptions(o api.LogsOptions) (opts logs.Options, err error) {
	if opts.Since, err = filters.Time(o.Since); err != nil {
		return opts, err
	}
	if opts.Until, err = filters.Time(o.Until); err != nil {
		return opts, err
	}
	opts.Tail = -1
	if o.Tail != "" && o.Tail != "all" {
		n, err := strconv.Atoi(o.Tail)
		if err != nil {
			return opts, invalid("invalid tail %q: want a number of lines or all", o.Tail)
		}
		if n >= 0 {
			opts.Tail = n
		}
	}
	return opts, nil
}

// framer puts lines into the form that clients take apart.
type framer struct {
	tty, stamps, details bool
	goesOn               map[string]bool // the stream's last piece had no end of its line
}

// write frames one line: stream number, three zeros, length, payload. Of a line in pieces only the first one begins with
// time and details.
func (f *framer) write(w *bufio.Writer, entry logs.Entry) error {
	line := entry.Line
	if !f.goesOn[entry.Stream] {
		line = append(f.head(entry), line...)
	}
	f.goesOn[entry.Stream] = entry.Partial()
	if f.tty {
		_, err := w.Write(line)
		return err
	}
	if len(line) > math.MaxInt32 {
		return fmt.Errorf("frame log line: %d bytes at %s are too many", len(line), entry.Time.Format(time.RFC3339))
	}
	header := [8]byte{1}
	if entry.Stream == logs.Stderr {
		header[0] = 2
	}
	binary.BigEndian.PutUint32(header[4:], uint32(len(line)))
	_, _ = w.Write(header[:]) // the next write has the error too
	_, err := w.Write(line)
	return err
}

func (f *framer) head(entry logs.Entry) []byte {
	var out []byte
	if f.stamps {
		out = append(entry.Time.UTC().AppendFormat(out, "2006-01-02T15:04:05.000000000Z07:00"), ' ')
	}
	if !f.details {
		return out
	}
	for i, k := range slices.Sorted(maps.Keys(entry.Attrs)) {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, url.QueryEscape(k)+"="+url.QueryEscape(entry.Attrs[k])...)
	}
	return append(out, ' ')
}
