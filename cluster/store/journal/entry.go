package journal

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/cluster/store/memstore"
)

// format is what this daemon writes and the newest it understands.
const format = 1

// partSize is the most that goes into one value: Consul takes 512 KiB of base64,
// ZooKeeper 1 MiB, and the head goes along.
const partSize = 256 << 10

const (
	keyHead        = "head"
	prefixLog      = "log/"
	prefixSnapshot = "snapshot/"
)

func entryKey(index uint64) string { return fmt.Sprintf("%s%020d", prefixLog, index) }

// partKey names one part of something that belongs to an entry's number.
func partKey(prefix string, index uint64, name string, part int) string {
	return fmt.Sprintf("%s%020d.%s.%d", prefix, index, name, part)
}

// numberOf is the entry's number that a key below log/ or snapshot/ carries.
func numberOf(key string) (uint64, bool) {
	_, rest, ok := strings.Cut(key, "/")
	if !ok {
		return 0, false
	}
	digits, _, _ := strings.Cut(rest, ".")
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil
}

// head is the value everybody compares and swaps.
type head struct {
	Format   int          `json:"v"`
	Journal  string       `json:"journal"` // made up by whoever wrote the first entry
	Index    uint64       `json:"index"`   // of the last entry
	Snapshot *snapshotRef `json:"snapshot,omitempty"`
}

// snapshotRef says where the newest snapshot is.
type snapshotRef struct {
	Index uint64 `json:"index"` // it is the state after this entry
	Name  string `json:"name"`
	Parts int    `json:"parts"`
}

// oldest is the number up to which the entries are in the snapshot.
func (h head) oldest() uint64 {
	if h.Snapshot == nil {
		return 0
	}
	return h.Snapshot.Index
}

// entry is one transaction whose conditions held when it was written.
type entry struct {
	Format int        `json:"v"`
	By     string     `json:"by"` // who wrote it
	Txn    *store.Txn `json:"txn,omitempty"`
	Name   string     `json:"name,omitempty"`  // of the parts that hold the transaction instead
	Parts  int        `json:"parts,omitempty"` // how many
}

// image is the whole state after an entry: a snapshot, or this host's copy on disk.
type image struct {
	Format  int            `json:"v"`
	Journal string         `json:"journal"`
	Index   uint64         `json:"index"`
	State   memstore.State `json:"state"`
}

func decodeHead(b []byte) (head, error) {
	h, err := decode[head]("head", b, func(h head) int { return h.Format })
	if err == nil && (h.Journal == "" || h.Index == 0 || h.oldest() > h.Index || h.Snapshot != nil && !plausible(h.Snapshot.Parts)) {
		err = fmt.Errorf("read the journal's head: it contradicts itself: %w", errdefs.ErrDataLoss)
	}
	return h, err
}

func decodeEntry(b []byte) (entry, error) {
	e, err := decode[entry]("entry", b, func(e entry) int { return e.Format })
	if err == nil && (e.Txn == nil) != plausible(e.Parts) {
		err = fmt.Errorf("read an entry of the journal: neither a transaction nor parts of one: %w", errdefs.ErrDataLoss)
	}
	if err == nil && e.Txn != nil {
		err = check(*e.Txn)
	}
	return e, err
}

// decodeTxn reads a transaction that was too large for its entry.
func decodeTxn(b []byte) (store.Txn, error) {
	var t store.Txn
	if err := json.Unmarshal(b, &t); err != nil {
		return t, fmt.Errorf("read an entry of the journal: %w: %w", err, errdefs.ErrDataLoss)
	}
	return t, check(t)
}

// check finds out whether the transaction could ever have been accepted, and
// can be applied twice without harm.
func check(t store.Txn) error {
	if err := t.Validate(); err != nil {
		return fmt.Errorf("read an entry of the journal: %w (%w)", err, errdefs.ErrDataLoss)
	}
	if t.ID == "" {
		return fmt.Errorf("read an entry of the journal: it has no ID: %w", errdefs.ErrDataLoss)
	}
	return nil
}

func decodeImage(b []byte) (image, error) {
	return decode[image]("snapshot", b, func(i image) int { return i.Format })
}

// plausible bounds what a damaged value can make this host fetch.
func plausible(parts int) bool { return parts > 0 && parts <= 10_000 }

// decode refuses with ErrNotImplemented what a newer daemon wrote, and with
// ErrDataLoss what no daemon wrote.
func decode[T any](what string, b []byte, formatOf func(T) int) (T, error) {
	var v T
	var only struct {
		Format int `json:"v"`
	}
	if err := json.Unmarshal(b, &only); err == nil && only.Format > format {
		return v, fmt.Errorf("read the journal's %s: a newer minictl wrote it: upgrade this host: %w", what, errdefs.ErrNotImplemented)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields() // an unknown field is an unknown meaning
	if err := d.Decode(&v); err != nil || formatOf(v) != format {
		return v, fmt.Errorf("read the journal's %s: %.40q is none (%w): %w", what, b, errOrNone(err), errdefs.ErrDataLoss)
	}
	return v, nil
}

func errOrNone(err error) error {
	if err == nil {
		return fmt.Errorf("no version")
	}
	return err
}

// cut splits b into parts that fit into a value.
func cut(b []byte) [][]byte {
	var parts [][]byte
	for len(b) > partSize {
		parts = append(parts, b[:partSize])
		b = b[partSize:]
	}
	return append(parts, b)
}
