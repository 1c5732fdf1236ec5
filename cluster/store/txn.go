package store

import (
	"crypto/rand"
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/containerd/errdefs"
)

const (
	// MaxKey is the length of the longest key, in bytes.
	MaxKey = 512
	// MaxTxn is the size of the largest transaction: all its keys and values,
	// in bytes. It keeps one command well below what a peer accepts in one
	// message and what a follower can write before the next heartbeat is due.
	MaxTxn = 1 << 20
)

// NewID makes up a transaction ID that nobody else has.
func NewID() string { return rand.Text() }

// Validate says whether t could ever be accepted: keys are non-empty, at most
// MaxKey bytes of printable UTF-8 (they travel as JSON, which would silently
// change anything else), and the whole is at most MaxTxn bytes. Otherwise it
// returns ErrInvalidArgument naming the key.
func (t Txn) Validate() error {
	size := 0
	for _, c := range t.If {
		if err := checkKey(c.Key); err != nil {
			return err
		}
		size += len(c.Key)
	}
	for _, op := range t.Then {
		if err := checkKey(op.Key); err != nil {
			return err
		}
		size += len(op.Key) + len(op.Value)
	}
	if size > MaxTxn {
		return fmt.Errorf("check transaction: %d bytes are more than the %d that fit into one: %w",
			size, MaxTxn, errdefs.ErrInvalidArgument)
	}
	if len(t.ID) > MaxKey || !utf8.ValidString(t.ID) {
		return fmt.Errorf("check transaction: ID %.40q is too long or not text: %w", t.ID, errdefs.ErrInvalidArgument)
	}
	return nil
}

func checkKey(key string) error {
	switch {
	case key == "":
		return fmt.Errorf("check transaction: empty key: %w", errdefs.ErrInvalidArgument)
	case len(key) > MaxKey:
		return fmt.Errorf("check transaction: key %.40q... is longer than %d bytes: %w", key, MaxKey, errdefs.ErrInvalidArgument)
	case !utf8.ValidString(key):
		return fmt.Errorf("check transaction: key %q is not valid UTF-8: %w", key, errdefs.ErrInvalidArgument)
	}
	for _, r := range key {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("check transaction: key %q holds the unprintable %U: %w", key, r, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// ConflictError is the answer to a transaction of which a condition did not
// hold. It is an errdefs.ErrConflict.
type ConflictError struct {
	Key  string
	Want Revision // what the condition asked for; 0: absent
	Have Revision // what was found; 0: absent
}

// Error names the key and both revisions.
func (e *ConflictError) Error() string {
	switch {
	case e.Want == 0:
		return fmt.Sprintf("key %q exists already (revision %d)", e.Key, e.Have)
	case e.Have == 0:
		return fmt.Sprintf("key %q was deleted (expected revision %d)", e.Key, e.Want)
	}
	return fmt.Sprintf("key %q was changed (revision %d, expected %d)", e.Key, e.Have, e.Want)
}

// Unwrap gives the error its class.
func (e *ConflictError) Unwrap() error { return errdefs.ErrConflict }

// ErrClosed is what is asked of a store after its Close; errdefs.ErrFailedPrecondition.
var ErrClosed = fmt.Errorf("the store is closed: %w", errdefs.ErrFailedPrecondition)
