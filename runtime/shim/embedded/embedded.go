// Package embedded carries the compressed shim, and the init of --init, inside the daemon's binary.
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

// The patterns also match the .txt files, so that the package compiles before make
// has built the .gz ones.
//
//go:embed shim.* init.*
var files embed.FS

// ErrMissing says that this binary was built without its shim.
var ErrMissing = errors.New("this binary was built without its shim: build it with make")

// Unpack writes the shim below dir and gives its path. The name is that of the
// content: running containers keep the path of the shim they were started with
// and need it to be deleted, so an upgrade must not overwrite it.
func Unpack(dir string) (string, error) { return unpackFile("shim", dir, 0o700) }

// UnpackInit writes the init below dir and gives its path. Containers' users run
// it, so everybody may.
func UnpackInit(dir string) (string, error) { return unpackFile("init", dir, 0o755) }

func unpackFile(name, dir string, mode os.FileMode) (string, error) {
	gz, err := files.ReadFile(name + ".gz")
	if errors.Is(err, fs.ErrNotExist) {
		return "", ErrMissing
	}
	if err != nil {
		return "", err
	}
	return unpack(gz, dir, name, mode)
}

func unpack(gz []byte, dir, name string, mode os.FileMode) (string, error) {
	path := filepath.Join(dir, fmt.Sprintf("minictl-%s-%.16x", name, sha256.Sum256(gz)))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(gz))
	if err != nil {
		return "", fmt.Errorf("unpack %s: %w", name, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("unpack %s: %w", name, err)
	}
	f, err := os.CreateTemp(dir, ".new-")
	if err != nil {
		return "", fmt.Errorf("unpack %s: %w", name, err)
	}
	defer os.Remove(f.Name()) // gone already when all went well
	_, err = io.Copy(f, z)
	// Closed before the rename makes it visible: a file open for writing cannot be run.
	if err = errors.Join(err, f.Chmod(mode), f.Close()); err != nil {
		return "", fmt.Errorf("unpack %s: %w", name, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return "", fmt.Errorf("unpack %s: %w", name, err)
	}
	return path, nil
}
