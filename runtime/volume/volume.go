// Package volume keeps named folders for containers, as docker's local volume driver does: what may be asked of one, its
// folder on this host, what is mounted there, and the image's content that a new one begins with.
package volume

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
)

// Driver is the one driver's name.
const Driver = "local"

// AnonymousLabel marks a volume that nobody named: docker's own, which prune looks for.
const AnonymousLabel = "com.docker.volume.anonymous"

// nameChars is how docker writes the rule in its messages.
const nameChars = "[a-zA-Z0-9][a-zA-Z0-9_.-]"

// dataDir is the folder that containers see, and fillDir the one in which an image's content is gathered before.
const (
	dataDir = "_data"
	fillDir = "_fill"
)

// Volume is one volume's record.
type Volume struct {
	Name    string            `json:"name"`
	Created time.Time         `json:"created"`
	Labels  map[string]string `json:"labels,omitempty"`
	Options map[string]string `json:"options,omitempty"` // docker's type, device and o; none: a plain folder
	// For is the container that is being created with it: should it never be, the volume goes, too.
	For string `json:"for,omitempty"`
	// Removing says that its content is being removed: whoever finds it so finishes that.
	Removing bool `json:"removing,omitempty"`
}

// Anonymous tells whether nobody named it.
func (v *Volume) Anonymous() bool {
	_, ok := v.Labels[AnonymousLabel]
	return ok
}

// CheckName refuses what cannot be a volume's name, in docker's words (errdefs.ErrInvalidArgument).
func CheckName(name string) error {
	if len(name) == 1 {
		return fmt.Errorf("volume name is too short, names should be at least two alphanumeric characters: %w", errdefs.ErrInvalidArgument)
	}
	ok := len(name) <= 255 // the kernel's limit for a folder's name
	for i, r := range name {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		ok = ok && (alnum || i > 0 && strings.ContainsRune("_.-", r))
	}
	if !ok || name == "" {
		if len(name) > 128 {
			name = strings.ToValidUTF8(name[:128], "") + "…"
		}
		return fmt.Errorf("create %s: %q includes invalid characters for a local volume name, only %q are allowed. "+
			"If you intended to pass a host directory, use absolute path: %w", name, name, nameChars, errdefs.ErrInvalidArgument)
	}
	return nil
}

// Local keeps volumes below one folder: <dir>/<name>/_data.
type Local struct{ dir string }

// NewLocal keeps volumes below dir, which need not exist yet.
func NewLocal(dir string) *Local { return &Local{dir} }

// Path is the folder that containers see.
func (l *Local) Path(name string) string { return filepath.Join(l.dir, name, dataDir) }

// Ensure makes the volume's folder. One that exists is left as it is; made says that it did not.
func (l *Local) Ensure(name string) (made bool, err error) {
	// Nobody but root looks past the name: what is below may be anybody's, readable or not.
	if err := os.MkdirAll(filepath.Join(l.dir, name), 0o701); err != nil {
		return false, fmt.Errorf("make volume %s: %w", name, err)
	}
	err = os.Mkdir(l.Path(name), 0o755)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("make volume %s: %w", name, err)
	}
	// The daemon's umask is not the volume's affair.
	return true, os.Chmod(l.Path(name), 0o755)
}

// Remove unmounts what Mount mounted and removes the folder with all its content; nil if it is absent. It removes
// nothing while anything else is mounted below: that is not the volume's to lose.
func (l *Local) Remove(v *Volume) error {
	if err := l.Unmount(v); err != nil {
		return fmt.Errorf("remove %s: %w", v.Name, err)
	}
	dir := filepath.Join(l.dir, v.Name)
	inside, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return fmt.Errorf("remove %s: %w", v.Name, err)
	}
	if len(inside) > 0 {
		return fmt.Errorf("remove %s: something is mounted at %s: unmount it first: %w", v.Name, inside[0].Mountpoint, errdefs.ErrConflict)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove %s: %w", v.Name, err)
	}
	return nil
}

// Tidy removes what a copy that was cut off has gathered.
func (l *Local) Tidy(name string) error {
	if err := os.RemoveAll(filepath.Join(l.dir, name, fillDir)); err != nil {
		return fmt.Errorf("tidy volume %s: %w", name, err)
	}
	return nil
}

// Empty tells whether there is nothing in the volume yet.
func (l *Local) Empty(name string) (bool, error) {
	f, err := os.Open(l.Path(name))
	if err != nil {
		return false, fmt.Errorf("read volume %s: %w", name, err)
	}
	defer f.Close()
	_, err = f.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}

// Usage sums the sizes of the volume's files in bytes, hard links once: docker's figure.
func (l *Local) Usage(name string) (size int64, err error) {
	type inode struct{ dev, ino uint64 }
	seen := map[inode]bool{}
	err = filepath.WalkDir(l.Path(name), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return ignoreGone(err)
		}
		info, err := d.Info()
		if err != nil {
			return ignoreGone(err)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
			id := inode{uint64(st.Dev), st.Ino}
			if seen[id] {
				return nil
			}
			seen[id] = true
		}
		size += info.Size()
		return nil
	})
	return size, err
}

// ignoreGone passes over what a running container removed meanwhile.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
