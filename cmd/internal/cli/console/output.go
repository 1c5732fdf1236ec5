package console

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// WriteTo writes what open gives to a file, or to the output when no file is named. A file takes its name only when all
// of it has come, so that half an archive is never taken for a whole one.
func (c *Console) WriteTo(file string, open func() (io.ReadCloser, error)) (err error) {
	if file == "" || file == "-" {
		if c.Out.IsTerminal() {
			return errors.New("refusing to write an archive to a terminal: use -o FILE, or redirect it")
		}
		return copyAll(c.Out, open)
	}
	// What is there and no plain file, /dev/null or a pipe, is written to and not replaced.
	if st, err := os.Stat(file); err == nil && st.IsDir() {
		return fmt.Errorf("%s is a folder: name a file", file)
	} else if err == nil && !st.Mode().IsRegular() {
		f, err := os.OpenFile(file, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(copyAll(f, open), f.Close())
	}
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-")
	if err != nil {
		return fmt.Errorf("invalid output path: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if err := errors.Join(copyAll(f, open), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}

func copyAll(w io.Writer, open func() (io.ReadCloser, error)) error {
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(w, r)
	return err
}
