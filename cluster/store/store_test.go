package store

import (
	"errors"
	"fmt"
	"testing"

	"github.com/containerd/errdefs"
)

func TestConflictText(t *testing.T) {
	for _, c := range []struct {
		err  ConflictError
		want string
	}{
		{ConflictError{Key: "a/b", Have: 7}, `key "a/b" exists already (revision 7)`},
		{ConflictError{Key: "a/b", Want: 3}, `key "a/b" was deleted (expected revision 3)`},
		{ConflictError{Key: "a/b", Want: 3, Have: 7}, `key "a/b" was changed (revision 7, expected 3)`},
	} {
		wrapped := fmt.Errorf("create network: %w", &c.err)
		var got *ConflictError
		if c.err.Error() != c.want || !errdefs.IsConflict(wrapped) || !errors.As(wrapped, &got) {
			t.Errorf("%q, want %q", c.err.Error(), c.want)
		}
	}
}

func TestNewID(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := NewID()
		if seen[id] || (Txn{ID: id}).Validate() != nil {
			t.Fatalf("ID %q", id)
		}
		seen[id] = true
	}
}
