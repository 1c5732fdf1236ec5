// Package embedded carries the compressed shim inside the daemon's binary.
package embedded

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// The pattern also matches shim.txt, so that the package compiles before make has
// built shim.gz.
//
//go:embed shim.*
var files embed.FS

// ErrMissing says that this binary was built without its shim.
var ErrMissing = errors.New("this binary was built without its shim: build it with make")

// Unpack writes the shim below dir and gives its path. The name is that of the
// content: running containers keep the path of the shim they were started with
// and need it to be deleted, so an upgrade must not overwrite it.
func Unpack(dir string) (string, error) {
	gz, err := files.ReadFile("shim.gz")
	if errors.Is(err, fs.ErrNotExist) {
		return "", ErrMissing
	}
	if err != nil {
		return "", err
	}
	return unpack(gz, dir)
}

func unpack(gz []byte, dir string) (string, error) {
	path := filepath.Join(dir, fmt.Sprintf("minictl-shim-%.16x", sha256.Sum256(gz)))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(gz))
	if err != nil {
		return "", fmt.Errorf("unpack shim: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("unpack shim: %w", err)
	}
	f, err := os.CreateTemp(dir, ".shim-")
	if err != nil {
		return "", fmt.Errorf("unpack shim: %w", err)
	}
	defer os.Remove(f.Name()) // gone already when all went well
	_, err = io.Copy(f, z)
	// Closed before the rename makes it visible: a file open for writing cannot be run.
	if err = errors.Join(err, f.Chmod(0o700), f.Close()); err != nil {
		return "", fmt.Errorf("unpack shim: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return "", fmt.Errorf("unpack shim: %w", err)
	}
	return path, nil
}
