package transport

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"
)

// Fence separates clusters, and a cluster from its own past before an operator's takeover.
type Fence struct {
	Cluster string   `json:"cluster"`        // UUID
	Epoch   string   `json:"epoch"`          // "<counter>.<random>": two takeovers at once have equal counters, never equal epochs
	Past    []string `json:"past,omitempty"` // the epochs that Epoch has followed upon, oldest first
}

// Relation is how another node's fence stands to this one's.
type Relation int

// The relations.
const (
	Same    Relation = iota
	Foreign          // of another cluster
	Behind           // they are from before a takeover that this node knows
	Ahead            // this node is from before a takeover that they know
	Split            // each has been taken over without the other
)

// Compare says how theirs stands to f. Counters decide nothing: whoever was taken over more often is not thereby right.
func (f Fence) Compare(theirs Fence) Relation {
	switch {
	case f.Cluster != theirs.Cluster:
		return Foreign
	case f.Epoch == theirs.Epoch:
		return Same
	case slices.Contains(f.Past, theirs.Epoch):
		return Behind
	case slices.Contains(theirs.Past, f.Epoch):
		return Ahead
	}
	return Split
}

// Check says why a host with the fence theirs may not take part in what this host takes part in.
func (f Fence) Check(theirs Fence) error {
	switch f.Compare(theirs) {
	case Same:
		return nil
	case Foreign:
		return fmt.Errorf("that node is of another cluster (%s, not %s): %w", theirs.Cluster, f.Cluster, errdefs.ErrPermissionDenied)
	case Behind:
		return fmt.Errorf("that node is from before a takeover of this cluster (epoch %s, now %s) and joins again by itself: %w",
			theirs.Epoch, f.Epoch, errdefs.ErrPermissionDenied)
	case Ahead:
		return fmt.Errorf("this node is from before a takeover of its cluster (epoch %s, now %s) and joins again by itself: %w",
			f.Epoch, theirs.Epoch, errdefs.ErrPermissionDenied)
	default:
		return fmt.Errorf("both sides of this cluster were taken over (epochs %s and %s): run `minictl cluster rejoin` on the nodes of the side whose decisions are to be given up: %w",
			f.Epoch, theirs.Epoch, errdefs.ErrPermissionDenied)
	}
}

// hello is what the calling side says first.
type hello struct {
	Fence
	Addr netip.AddrPort `json:"addr,omitzero"` // where it listens: it may have moved since the others heard of it
}

// answer is what the called side says to it.
type answer struct {
	Refused string         `json:"refused,omitempty"`
	Fence   *Fence         `json:"fence,omitempty"` // of who refuses, for a member that may not know it
	Addr    netip.AddrPort `json:"addr,omitzero"`   // of who refuses
}

// ErrFenced is a refusal that is about the epoch alone: who is refused may be a member as good as any, and joins again.
var ErrFenced = errors.New("another epoch")

// fenced is such a refusal, in the other side's words.
type fenced struct{ error }

func (fenced) Is(target error) bool { return target == ErrFenced }
func (f fenced) Unwrap() error      { return f.error }

// maxFrame bounds what a frame may claim to hold.
const maxFrame = 4096

// writeFrame sends v as JSON behind its length (2 bytes, network order).
func writeFrame(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("send fence: %w", err)
	}
	if len(b) > maxFrame {
		return fmt.Errorf("send fence: %d bytes: %w", len(b), errdefs.ErrInvalidArgument)
	}
	if _, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)); err != nil {
		return fmt.Errorf("send fence: %w: %w", err, errdefs.ErrUnavailable)
	}
	return nil
}

func readFrame(r io.Reader, v any) error {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return fmt.Errorf("read fence: %w: %w", err, errdefs.ErrUnavailable)
	}
	n := binary.BigEndian.Uint16(head[:])
	if n > maxFrame {
		return fmt.Errorf("read fence: %d bytes: %w", n, errdefs.ErrInvalidArgument)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return fmt.Errorf("read fence: %w: %w", err, errdefs.ErrUnavailable)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read fence: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return nil
}
