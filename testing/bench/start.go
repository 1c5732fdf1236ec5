package main

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/minictl/minictl/testing/lab"
)

// startRepeats is how often a daemon is started.
const startRepeats = 5

// sizes weighs the programs: the daemon's and command line's one, which holds the shim compressed, and the shim unpacked.
func (b *bench) sizes() error {
	bin, err := lab.Binary()
	if err != nil {
		return err
	}
	for _, f := range []struct{ what, path string }{
		{"`minictl` on disk", bin}, {"… the shim in it, unpacked", filepath.Join(filepath.Dir(bin), "minictl-shim")},
	} {
		st, err := os.Stat(f.path)
		if err != nil {
			return err
		}
		b.table.add(figure{what: f.what, values: sample{float64(st.Size()) / 1e6}, format: "%.1f MB"})
	}
	return nil
}

// starts times a daemon from its start until its socket answers, which the lab asks every 10 ms: on a machine that never
// had one, and again on the folders that it left. It is started as users start it, by the program that is installed; the
// first start unpacks the daemon's. (The other parts' hosts run that from one file, and share its pages.)
func (b *bench) starts() error {
	bin, err := lab.Binary()
	if err != nil {
		return err
	}
	if err := os.Setenv("MINICTL_BIN", bin); err != nil {
		return err
	}
	defer os.Unsetenv("MINICTL_BIN")
	if b.lab == nil {
		b.lab = lab.New(b)
	}
	h := b.lab.Host("fresh")
	var cold, warm sample
	for range startRepeats {
		for _, s := range []*sample{&cold, &warm} {
			begin := time.Now()
			h.Daemon()
			*s = append(*s, ms(time.Since(begin)))
			h.StopDaemon()
		}
		if err := forget(h); err != nil {
			return err
		}
	}
	h.Halt()
	b.table.add(figure{what: "daemon's start to ready, first on a machine", values: cold})
	b.table.add(figure{what: "… on its old folders", values: warm})
	return nil
}

// forget empties a host's folders.
func forget(h *lab.Host) error {
	var errs []error
	for _, pattern := range []string{"/var/lib/minictl/*", "/run/minictl"} {
		found, err := filepath.Glob(h.Path(pattern))
		errs = append(errs, err)
		for _, f := range found {
			errs = append(errs, os.RemoveAll(f))
		}
	}
	return errors.Join(errs...)
}
