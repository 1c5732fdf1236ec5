package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/minictl/minictl/runtime/tree"
)

// localSource is a local path that is copied.
type localSource struct {
	root     *tree.Root
	path     string // below root
	name     string // what it is called, "." for a folder's content alone
	isFolder bool
}

// openLocal finds a source. A link is copied as a link unless follow or a slash at its end says otherwise; the copy has
// the link's name.
func openLocal(p string, follow bool) (*localSource, error) {
	abs, err := absolute(p)
	if err != nil {
		return nil, err
	}
	st, err := os.Lstat(abs)
	if err != nil {
		return nil, err
	}
	s := &localSource{name: tree.ArchiveName(tree.Clean(abs))}
	if st.Mode()&fs.ModeSymlink != 0 && follow || assertsFolder(abs) {
		if abs, err = filepath.EvalSymlinks(abs); err != nil {
			return nil, err
		}
		if st, err = os.Stat(abs); err != nil {
			return nil, err
		}
		if assertsFolder(p) && !st.IsDir() {
			return nil, fmt.Errorf("%s: not a directory", p)
		}
	}
	s.isFolder, s.path = st.IsDir(), filepath.Base(abs)
	s.root, err = tree.Open(filepath.Dir(abs))
	return s, err
}

// pack makes the archive as it is read. failed tells, once it has ended, why it ended early.
func (s *localSource) pack(ctx context.Context, name string) (archive io.ReadCloser, failed func() error) {
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := s.root.Pack(ctx, w, s.path, tree.PackOptions{Name: name})
		_ = w.CloseWithError(err)
		done <- err
	}()
	return r, func() error {
		_ = r.Close()
		if err := <-done; !errors.Is(err, io.ErrClosedPipe) {
			return err
		}
		return nil
	}
}

// absolute is filepath.Abs that keeps what stands at the end: "x/" and "x/." are not "x".
func absolute(p string) (string, error) {
	abs, err := filepath.Abs(p)
	if err != nil {
		return "", err
	}
	switch {
	case p == "." || len(p) > 1 && p[len(p)-2:] == "/.":
		return abs + "/.", nil
	case p[len(p)-1] == '/' && abs != "/":
		return abs + "/", nil
	}
	return abs, nil
}

// maxLinks bounds the links that one destination may lead through, as the kernel does.
const maxLinks = 40

// localDest finds what a destination is. Links are followed, also one that leads to what is not there yet.
func localDest(dest string) (real string, exists, isFolder bool, err error) {
	real, err = absolute(dest)
	for range maxLinks {
		if err != nil {
			return "", false, false, err
		}
		st, serr := os.Lstat(real)
		if errors.Is(serr, fs.ErrNotExist) {
			return real, false, false, parentExists(real)
		}
		if serr != nil {
			return "", false, false, serr
		}
		if st.Mode()&fs.ModeSymlink == 0 {
			return real, true, st.IsDir(), nil
		}
		var target string
		if target, err = os.Readlink(real); err == nil && !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(real), target)
		}
		real = target
	}
	return "", false, false, fmt.Errorf("%s: too many links", dest)
}

func parentExists(p string) error {
	st, err := os.Stat(filepath.Dir(filepath.Clean(p)))
	if err != nil {
		return fmt.Errorf("invalid output path: directory %q does not exist", filepath.Dir(filepath.Clean(p)))
	}
	if !st.IsDir() {
		return fmt.Errorf("invalid output path: %q is not a directory", filepath.Dir(filepath.Clean(p)))
	}
	return nil
}

// unpackLocal lays a container's archive down. The container is not trusted: nothing leaves the folder, whatever the
// archive says, and all belongs to whoever copies.
func unpackLocal(ctx context.Context, archive io.Reader, name string, to landing) error {
	root, err := tree.Open(to.folder)
	if err != nil {
		return err
	}
	defer root.Close()
	if name != to.name {
		renamed := tree.Rename(archive, name, to.name)
		defer renamed.Close()
		archive = renamed
	}
	return root.Unpack(ctx, archive, "/", tree.UnpackOptions{KeepKind: true, NoChown: true})
}
