// Package inside carries the daemon's program inside the command line's. A command lasts a few milliseconds, and most of
// them would go by while the packages of a daemon that it does not run set themselves up.
package inside

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// The pattern also matches the .txt file, so that the package compiles before make has built the others.
//
//go:embed daemon.*
var files embed.FS

// ErrMissing says that this binary was built without the daemon.
var ErrMissing = errors.New("this binary was built without the daemon: build it with make")

// name is the file's, which is what the kernel calls the process.
const name = "minictl"

// program is one compressed program.
type program struct {
	compressed []byte
	sum        string // of its content, in hexadecimal
	size       int64  // in bytes
}

// Exec replaces this process by the daemon's program. It is kept in a folder below dir; when dir is "", or no place to keep
// programs in, it is in memory only. Exec returns only when it failed.
func Exec(dir string, args, env []string) error {
	p, err := load(files)
	if err != nil {
		return err
	}
	if dir != "" {
		path, err := p.keep(dir)
		if err == nil {
			err = unix.Exec(path, args, env)
		}
		if !beyondRepair(err) {
			return fmt.Errorf("start the daemon's program: %w", err)
		}
	}
	if err := p.execInMemory(args, env); err != nil {
		return fmt.Errorf("start the daemon's program: %w", err)
	}
	return nil
}

// beyondRepair are the errors of a file system that is not ours to write to, or to run programs from.
func beyondRepair(err error) bool {
	for _, e := range []error{fs.ErrPermission, unix.EROFS, unix.ENOSPC, unix.EDQUOT} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func load(from fs.FS) (program, error) {
	var p program
	facts, err := fs.ReadFile(from, "daemon.facts")
	if err == nil {
		p.compressed, err = fs.ReadFile(from, "daemon.zst")
	}
	if errors.Is(err, fs.ErrNotExist) {
		return p, ErrMissing
	}
	if err != nil {
		return p, err
	}
	if _, err := fmt.Sscanf(string(facts), "%s %d\n", &p.sum, &p.size); err != nil || len(p.sum) != 2*sha256.Size {
		return p, fmt.Errorf("daemon.facts: %q: want a checksum and a size: %w", facts, err)
	}
	return p, nil
}

// keep makes sure that the program is in a folder of its own below dir, and that no older one is, and gives its path.
func (p program) keep(dir string) (string, error) {
	home := filepath.Join(dir, p.sum[:16])
	path := filepath.Join(home, name)
	// A machine that lost power may have kept the name and not the content.
	if st, err := os.Stat(path); err == nil && st.Size() == p.size {
		return path, nil
	}
	if err := os.MkdirAll(home, 0o700); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(home, ".new-")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name()) // gone already when all went well
	// Closed before the rename makes it visible: a file open for writing cannot be run.
	if err := errors.Join(p.unpack(f), f.Chmod(0o700), f.Close()); err != nil {
		return "", err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return "", err
	}
	p.tidy(dir)
	return path, nil
}

// tidy removes the programs of other versions, as far as they can be: they take room and nothing else. One that runs stays
// in the kernel until it ends.
func (p program) tidy(dir string) {
	all, _ := os.ReadDir(dir)
	for _, e := range all {
		if e.Name() != p.sum[:16] {
			_ = os.RemoveAll(filepath.Join(dir, e.Name()))
		}
	}
}

func (p program) execInMemory(args, env []string) error {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	w := os.NewFile(uintptr(fd), name)
	defer w.Close()
	if err := p.unpack(w); err != nil {
		return err
	}
	return unix.Exec(fmt.Sprintf("/proc/self/fd/%d", fd), args, env)
}

func (p program) unpack(w io.Writer) error {
	z, err := zstd.NewReader(bytes.NewReader(p.compressed))
	if err != nil {
		return err
	}
	defer z.Close()
	n, err := z.WriteTo(w)
	if err == nil && n != p.size {
		err = fmt.Errorf("%d of %d bytes: %w", n, p.size, io.ErrUnexpectedEOF)
	}
	return err
}
