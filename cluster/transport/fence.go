package transport

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// Fence separates clusters, and a cluster from its own past before an operator's takeover.
type Fence struct {
	Cluster string `json:"cluster"` // UUID
	Epoch   string `json:"epoch"`   // "<counter>.<random>": two takeovers at once have equal counters, never equal epochs
}

// Check says why a host with the fence theirs may not take part in what this host takes part in.
func (f Fence) Check(theirs Fence) error {
	switch {
	case f == theirs:
		return nil
	case f.Cluster != theirs.Cluster:
		return fmt.Errorf("that node is of another cluster (%s, not %s): %w", theirs.Cluster, f.Cluster, errdefs.ErrPermissionDenied)
	case epochNumber(theirs.Epoch) < epochNumber(f.Epoch):
		return fmt.Errorf("that node is from before a takeover of this cluster (epoch %s, now %s): run `minictl cluster leave --force` on it and join it again: %w",
			theirs.Epoch, f.Epoch, errdefs.ErrPermissionDenied)
	case epochNumber(theirs.Epoch) > epochNumber(f.Epoch):
		return fmt.Errorf("this node is from before a takeover of its cluster (epoch %s, now %s): run `minictl cluster leave --force` on it and join it again: %w",
			f.Epoch, theirs.Epoch, errdefs.ErrPermissionDenied)
	default:
		return fmt.Errorf("both sides of this cluster were taken over (epochs %s and %s): run `minictl cluster leave --force` on the nodes of one side and join them again: %w",
			f.Epoch, theirs.Epoch, errdefs.ErrPermissionDenied)
	}
}

func epochNumber(epoch string) uint64 {
	counter, _, _ := strings.Cut(epoch, ".")
	n, _ := strconv.ParseUint(counter, 10, 64) // a damaged one counts as the oldest
	return n
}

// answer is what the called side says to a fence.
type answer struct {
	Refused string `json:"refused,omitempty"`
}

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
