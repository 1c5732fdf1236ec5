package raft

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"github.com/containerd/errdefs"
	hraft "github.com/hashicorp/raft"
	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/cluster/store/memstore"
)

// A snapshot is a text of JSON lines: a header, one line for every pair in the
// order of the keys, one for every remembered transaction ID, and a last line
// with the checksum of all the bytes before it. It is written and read as a
// stream, compares with diff, and cannot be mistaken for a whole when its end
// is missing.
const (
	snapshotFormat  = "minictl store"
	snapshotVersion = 1

	// maxLine is longer than any line can be: base64 of the largest
	// transaction and a key. A damaged file does not make the reader buffer more.
	maxLine = store.MaxTxn*4/3 + 8*store.MaxKey
)

type snapshotHead struct {
	Format   string         `json:"format"`
	Version  int            `json:"version"`
	Revision store.Revision `json:"revision"`
	Applied  uint64         `json:"applied"` // index of the last command, which may have changed nothing
	Pairs    int            `json:"pairs"`
	IDs      int            `json:"ids"`
}

type snapshotPair struct {
	Key   string         `json:"k"`
	Value []byte         `json:"v"`
	Rev   store.Revision `json:"r"`
}

type snapshotID struct {
	ID  string         `json:"id"`
	Rev store.Revision `json:"r"`
}

type snapshotEnd struct {
	CRC32C string `json:"crc32c"`
}

// snapshot is a captured state; it implements raft.FSMSnapshot.
type snapshot struct {
	state   memstore.State
	applied uint64
}

// Persist implements raft.FSMSnapshot.
func (s *snapshot) Persist(sink hraft.SnapshotSink) error {
	if err := s.write(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (s *snapshot) Release() {}

func (s *snapshot) write(w io.Writer) error {
	buf := bufio.NewWriter(w)
	sum := crc32.New(castagnoli)
	enc := json.NewEncoder(io.MultiWriter(buf, sum))
	err := enc.Encode(snapshotHead{snapshotFormat, snapshotVersion, s.state.Rev, s.applied, len(s.state.Pairs), len(s.state.IDs)})
	for _, p := range s.state.Pairs {
		err = errors.Join(err, enc.Encode(snapshotPair(p)))
	}
	for _, a := range s.state.IDs {
		err = errors.Join(err, enc.Encode(snapshotID(a)))
	}
	err = errors.Join(err, json.NewEncoder(buf).Encode(snapshotEnd{fmt.Sprintf("%08x", sum.Sum32())}), buf.Flush())
	if err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// readSnapshot reads what write wrote. Anything else is ErrDataLoss, or
// ErrNotImplemented when a newer daemon wrote it.
func readSnapshot(r io.Reader) (*snapshot, error) {
	lines := &lineReader{scan: bufio.NewScanner(r), sum: crc32.New(castagnoli)}
	lines.scan.Buffer(make([]byte, 64<<10), maxLine)
	s, err := lines.snapshot()
	if err != nil && !errdefs.IsNotImplemented(err) {
		err = fmt.Errorf("%w: %w", err, errdefs.ErrDataLoss)
	}
	if err != nil {
		return nil, fmt.Errorf("read snapshot: line %d: %w", lines.n, err)
	}
	return s, nil
}

type lineReader struct {
	scan *bufio.Scanner
	sum  hash.Hash32
	n    int // number of the line read last, from 1
}

func (l *lineReader) snapshot() (*snapshot, error) {
	var head snapshotHead
	if err := l.next(&head); err != nil {
		return nil, err
	}
	if head.Format != snapshotFormat {
		return nil, fmt.Errorf("format is %.40q, not %q", head.Format, snapshotFormat)
	}
	if head.Version != snapshotVersion {
		return nil, fmt.Errorf("it has version %d and this daemon knows %d; upgrade minictl on this host: %w",
			head.Version, snapshotVersion, errdefs.ErrNotImplemented)
	}
	s := &snapshot{applied: head.Applied, state: memstore.State{Rev: head.Revision}}
	for range head.Pairs {
		var p snapshotPair
		if err := l.next(&p); err != nil {
			return nil, err
		}
		s.state.Pairs = append(s.state.Pairs, store.Pair(p))
	}
	for range head.IDs {
		var a snapshotID
		if err := l.next(&a); err != nil {
			return nil, err
		}
		s.state.IDs = append(s.state.IDs, memstore.Applied(a))
	}
	return s, l.end()
}

// next reads one line into v and counts it into the checksum.
func (l *lineReader) next(v any) error {
	l.n++
	if !l.scan.Scan() {
		if err := l.scan.Err(); err != nil {
			return err
		}
		return io.ErrUnexpectedEOF
	}
	_, _ = l.sum.Write(append(l.scan.Bytes(), '\n')) // a hash never fails
	return json.Unmarshal(l.scan.Bytes(), v)
}

func (l *lineReader) end() error {
	want := fmt.Sprintf("%08x", l.sum.Sum32())
	var end snapshotEnd
	if err := l.next(&end); err != nil {
		return err
	}
	if end.CRC32C != want {
		return fmt.Errorf("the checksum is %s, not %.8q", want, end.CRC32C)
	}
	if l.scan.Scan() {
		return errors.New("more follows the end")
	}
	return l.scan.Err()
}
