package ctrd

import (
	"errors"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/containerd/ttrpc"
)

// TestShimGone: a signal that comes as the shim ends finds nobody; it is no failure.
func TestShimGone(t *testing.T) {
	if err := shimGone(nil); err != nil {
		t.Errorf("no error: %v", err)
	}
	if err := shimGone(errors.New("kill: " + ttrpc.ErrClosed.Error())); !errdefs.IsNotFound(err) {
		t.Errorf("closed connection: %v", err)
	}
	if err := shimGone(errors.New("ttrpc: closed too early")); errdefs.IsNotFound(err) {
		t.Errorf("another error: %v", err)
	}
}
