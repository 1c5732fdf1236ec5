package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/minictl/minictl/cmd/internal/config"
)

// folderLock keeps a second daemon off the same folders. The kernel drops it with the process, however that ends.
type folderLock struct{ files []*os.File }

func acquire(cfg config.Config) (*folderLock, error) {
	l := &folderLock{}
	for _, dir := range []string{cfg.DataRoot, cfg.ExecRoot} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, errors.Join(fmt.Errorf("make the daemon's folder: %w", err), l.release())
		}
		f, err := lockFile(filepath.Join(dir, "daemon.lock"))
		if err != nil {
			return nil, errors.Join(err, l.release())
		}
		l.files = append(l.files, f)
	}
	return l, nil
}

func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		pid, _ := os.ReadFile(path)
		_ = f.Close()
		return nil, fmt.Errorf("another minictl daemon, pid %s, owns %s: stop it, or give this one its own --data-root and --exec-root",
			strings.TrimSpace(string(pid)), filepath.Dir(path))
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f, nil
}

func (l *folderLock) release() error {
	var errs []error
	for _, f := range l.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
