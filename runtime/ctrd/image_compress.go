package ctrd

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/errdefs"
)

// decompress finds out by an archive's first bytes how it is compressed: not at all, with gzip, zstd or bzip2.
func decompress(in io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReader(in)
	head, err := b.Peek(6)
	switch {
	case bytes.HasPrefix(head, []byte("BZh")):
		return io.NopCloser(bzip2.NewReader(b)), nil
	case bytes.Equal(head, []byte("\xfd7zXZ\x00")):
		return nil, fmt.Errorf("an archive compressed with xz is not read here: pipe it through \"xz -dc\": %w", errdefs.ErrInvalidArgument)
	case err != nil && len(head) == 0:
		return nil, fmt.Errorf("the archive is empty: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	plain, err := compression.DecompressStream(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return plain, nil
}
