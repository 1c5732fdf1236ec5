package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/minictl/minictl/runtime/container"
	"github.com/minictl/minictl/runtime/oci"
)

// maxUserFile bounds how much of a container's passwd or group file is read: it is the container's to write.
const maxUserFile = 4 << 20

// userFiles are the two files that names of users are looked up in.
type userFiles struct{ passwd, group []byte }

// userCache keeps root's entry per image: most containers run as root, and mounting each one's root file system just to
// read that again would double a start's mounts.
type userCache struct {
	mu    sync.Mutex
	files map[string]userFiles // by image ID
}

// user resolves whom the container's process runs as.
func (e *Engine) user(ctx context.Context, s *container.Spec) (specs.User, string, error) {
	asked, extra := s.Config.User, s.HostConfig.GroupAdd
	e.users.mu.Lock()
	files, ok := e.users.files[s.ImageID]
	e.users.mu.Unlock()
	if !ok || oci.NeedsFiles(asked, extra) {
		err := e.rt.RootFS(ctx, s.ID, func(root string) (err error) {
			files, err = readUserFiles(root)
			return err
		})
		if err != nil {
			return specs.User{}, "", fmt.Errorf("look up user: %w", err)
		}
		e.users.mu.Lock()
		if e.users.files == nil {
			e.users.files = map[string]userFiles{}
		}
		if !ok {
			e.users.files[s.ImageID] = files
		}
		e.users.mu.Unlock()
	}
	return oci.User(asked, files.passwd, files.group, extra)
}

// readUserFiles reads both files below root. os.Root keeps a link in the container from leading outside.
func readUserFiles(dir string) (userFiles, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return userFiles{}, err
	}
	defer root.Close()
	read := func(name string) ([]byte, error) {
		f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe would wait for somebody who writes
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
			return nil, errors.Join(err, invalid("the container's /%s is no regular file", name))
		}
		return io.ReadAll(io.LimitReader(f, maxUserFile))
	}
	var u userFiles
	if u.passwd, err = read("etc/passwd"); err != nil {
		return u, err
	}
	u.group, err = read("etc/group")
	return u, err
}
