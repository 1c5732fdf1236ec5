// Package plain reads streams that are compressed. How is told by their first bytes, as docker does it: a client need not
// say.
package plain

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"time"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// What the formats begin with: RFC 1952, RFC 8878 (section 3.1.1), bzip2's and xz's own descriptions.
const (
	magicGzip  = "\x1f\x8b"
	magicBzip2 = "BZh"
	magicZstd  = "\x28\xb5\x2f\xfd"
	magicXz    = "\xfd7zXZ\x00"
)

// What a stream's own header may ask for as memory, in bytes. The windows of `xz -9` (64 MiB, and a little) and of
// `zstd --ultra -22` (128 MiB) are below.
const (
	maxZstdWindow = 128 << 20
	maxXzMemory   = "128MiB"
)

// Format names how what begins with head is compressed: gzip, bzip2, zstd or xz; empty is not at all.
func Format(head []byte) string {
	for magic, name := range map[string]string{magicGzip: "gzip", magicBzip2: "bzip2", magicZstd: "zstd", magicXz: "xz"} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return name
		}
	}
	return ""
}

// Open gives what is in a stream, which may be compressed with gzip, bzip2, zstd or xz. For xz the program of that name
// is run, as docker does; ctx ends it. The reader must be closed.
func Open(ctx context.Context, in io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReader(in)
	head, _ := b.Peek(len(magicXz)) // what is too short is not compressed
	switch Format(head) {
	case "gzip":
		return gzip.NewReader(b)
	case "bzip2":
		return io.NopCloser(bzip2.NewReader(b)), nil
	case "zstd":
		z, err := zstd.NewReader(b, zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	case "xz":
		return openXz(ctx, b)
	}
	return io.NopCloser(b), nil
}

// openXz runs xz, which keeps to a bound of memory whatever the stream says; no package in Go does.
func openXz(ctx context.Context, in io.Reader) (io.ReadCloser, error) {
	program, err := exec.LookPath("xz")
	if err != nil {
		return nil, fmt.Errorf("what is compressed with xz is read by the program xz, which is not on this host: install xz-utils, or send it through \"xz -dc\": %w", errdefs.ErrNotImplemented)
	}
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, program, "--decompress", "--stdout", "--quiet", "--threads=1", "--memlimit-decompress="+maxXzMemory)
	var said bytes.Buffer
	cmd.Stdin, cmd.Stderr = in, &said
	out, to := io.Pipe()
	cmd.Stdout = to
	cmd.WaitDelay = time.Second // the sender may be silent when the program has ended
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, fmt.Errorf("run xz: %w", err)
	}
	x := &xz{PipeReader: out, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(x.ended)
		err := cmd.Wait()
		if err != nil {
			err = fmt.Errorf("xz: %w: %s", err, bytes.TrimSpace(said.Bytes()))
		}
		to.CloseWithError(err)
	}()
	return x, nil
}

// xz is a program that decompresses.
type xz struct {
	*io.PipeReader
	cancel context.CancelFunc
	ended  chan struct{}
}

// Close ends the program if it still runs.
func (x *xz) Close() error {
	x.cancel()
	err := x.CloseWithError(errors.New("closed"))
	<-x.ended
	return err
}
