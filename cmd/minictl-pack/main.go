// Command minictl-pack compresses the daemon's program for the command line's, which carries it.
package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"

	"github.com/klauspost/compress/zstd"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: minictl-pack PROGRAM COMPRESSED FACTS")
		os.Exit(2)
	}
	if err := pack(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "minictl-pack:", err)
		os.Exit(1)
	}
}

// pack writes the compressed program, and its checksum and size. It leaves what is right as it is.
func pack(program, compressed, facts string) error {
	text, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	now := fmt.Sprintf("%x %d\n", sha256.Sum256(text), len(text))
	if was, err := os.ReadFile(facts); err == nil && string(was) == now {
		return nil
	}
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression))
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(compressed, z.EncodeAll(text, nil), 0o644),
		os.WriteFile(facts, []byte(now), 0o644),
	)
}
