package ctrd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/minictl/minictl/runtime/plain"
	"github.com/minictl/minictl/runtime/room"
)

// decompress gives an archive that may be compressed as it was before.
func decompress(ctx context.Context, in io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReader(in)
	if _, err := b.Peek(1); err != nil {
		return nil, fmt.Errorf("the archive is empty: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	out, err := plain.Open(ctx, b)
	if err != nil && !errdefs.IsNotImplemented(err) {
		err = fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return out, err
}

// withRoom runs what writes images, and stops it before the disk is full. An external containerd has its images where it
// likes; there the disk that is looked at is only most likely the right one.
func (r *Runtime) withRoom(ctx context.Context, fn func(context.Context) error) error {
	return room.Keep(ctx, r.disk, fn)
}

// until is a reader that ends with its context: what it feeds may not look at that. What it cannot read is the sender's
// fault.
type until struct {
	ctx context.Context
	io.Reader
}

// Read implements io.Reader.
func (u until) Read(b []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := u.Reader.Read(b)
	if err != nil && !errors.Is(err, io.EOF) && u.ctx.Err() == nil {
		err = fmt.Errorf("read archive: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return n, err
}

// strange names how a layer's blob is compressed if layers may not be: OCI's and docker's are plain, gzip or zstd.
func strange(ctx context.Context, cs content.Provider, l ocispec.Descriptor) string {
	ra, err := cs.ReaderAt(ctx, l)
	if err != nil {
		return ""
	}
	defer ra.Close()
	head := make([]byte, 8)
	n, _ := ra.ReadAt(head, 0)
	if f := plain.Format(head[:n]); f == "xz" || f == "bzip2" {
		return f
	}
	return ""
}
