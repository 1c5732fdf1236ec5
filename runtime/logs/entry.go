// Package logs writes and reads a container's output as JSON lines in the form
// of docker's json-file driver.
//
// A directory holds json.log, the file being written, and json.log.1 (newest)
// to json.log.N (oldest) after rotation, with .gz behind it once compressed. One process writes (the shim), any
// number read.
package logs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"
)

const (
	// Stdout and Stderr are the values of Entry.Stream. A terminal's output is
	// all Stdout.
	Stdout = "stdout"
	Stderr = "stderr"

	// MaxLine is the number of bytes after which a line is split, docker's own figure.
	MaxLine = 16 << 10

	fileName = "json.log"
	// maxEncoded bounds one JSON line on reading: each byte of a piece takes at
	// most six ("\u0000"), the rest is for time and attributes.
	maxEncoded = 6*MaxLine + 64<<10
)

// Entry is one line of output, or a piece of one.
type Entry struct {
	// Time is when the line's first byte was read from the container.
	Time time.Time
	// Stream is Stdout or Stderr.
	Stream string
	// Line ends in a newline, unless the line goes on in the stream's next
	// entry (longer than MaxLine, or a prompt) or was the last and had none.
	Line []byte
	// Attrs are the log labels, if the line carries any.
	Attrs map[string]string
}

// Partial says that Line has no newline of its own.
func (e Entry) Partial() bool { return !bytes.HasSuffix(e.Line, []byte{'\n'}) }

// record is an Entry as the file has it.
type record struct {
	Log    string            `json:"log"`
	Stream string            `json:"stream"`
	Attrs  map[string]string `json:"attrs,omitempty"`
	Time   time.Time         `json:"time"`
}

var errNotEntry = errors.New("not a log entry")

// decode reads one JSON line without its newline.
func decode(b []byte) (Entry, error) {
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return Entry{}, fmt.Errorf("%w: %w", errNotEntry, err)
	}
	if r.Stream == "" {
		return Entry{}, fmt.Errorf("%w: no stream", errNotEntry)
	}
	return Entry{Time: r.Time, Stream: r.Stream, Line: []byte(r.Log), Attrs: r.Attrs}, nil
}

// appendEntry appends e as a JSON line. Written by hand, since the shim does it
// for every line and encoding/json's garbage would be most of the shim's heap.
func appendEntry(dst []byte, e Entry) []byte {
	dst = append(dst, `{"log":`...)
	dst = appendString(dst, e.Line)
	dst = append(dst, `,"stream":`...)
	dst = strconv.AppendQuote(dst, e.Stream)
	if len(e.Attrs) > 0 {
		a, _ := json.Marshal(e.Attrs) // a map of strings cannot fail
		dst = append(append(dst, `,"attrs":`...), a...)
	}
	dst = append(dst, `,"time":"`...)
	dst = e.Time.UTC().AppendFormat(dst, time.RFC3339Nano)
	return append(dst, "\"}\n"...)
}

// appendString appends b as a JSON string. Bytes that are no UTF-8 become the
// replacement character, as docker has it.
func appendString(dst, b []byte) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for len(b) > 0 {
		c, size := b[0], 1
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == '\t':
			dst = append(dst, '\\', 't')
		case c < ' ' || c == 0x7f:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c < utf8.RuneSelf:
			dst = append(dst, c)
		default:
			var r rune
			if r, size = utf8.DecodeRune(b); r == utf8.RuneError {
				dst = append(dst, `\ufffd`...)
			} else {
				dst = append(dst, b[:size]...)
			}
		}
		b = b[size:]
	}
	return append(dst, '"')
}
