package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/minictl/minictl/netdriver"
)

// record is one endpoint, as plugins were or are about to be asked for it. It is on disk before the first plugin runs and
// until the last has taken back what it made, with all that this needs: so nothing is lost with the daemon, the network or
// the sandbox.
type record struct {
	Endpoint  netdriver.EndpointID `json:"endpoint"`
	Network   netdriver.NetworkID  `json:"network"`
	Name      string               `json:"name"` // the network's
	Container string               `json:"container"`
	Interface string               `json:"interface"`
	Sandbox   string               `json:"sandbox"` // path of the network namespace
	Options   map[string]string    `json:"options"` // the network's
	Wishes    wishes               `json:"wishes"`
	Result    json.RawMessage      `json:"result,omitempty"` // what ADD gave; empty: it may have got anywhere
}

func (d *Driver) recordDir() string { return filepath.Join(d.dir, "endpoints") }

func (d *Driver) recordPath(id netdriver.EndpointID) string {
	return filepath.Join(d.recordDir(), filepath.Base(string(id))+".json")
}

// unfinished begins the name of a record that is being written.
const unfinished = ".new-"

// keep writes a record, which is whole or not there, whatever happens.
func (d *Driver) keep(r *record) (err error) {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(d.recordDir(), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(d.recordDir(), unfinished+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("keep endpoint %s: %w", r.Endpoint, err)
	}
	return os.Rename(f.Name(), d.recordPath(r.Endpoint))
}

// recall reads an endpoint's record; nil if there is none.
func (d *Driver) recall(id netdriver.EndpointID) (*record, error) {
	b, err := os.ReadFile(d.recordPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := &record{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("read %s: %w", d.recordPath(id), err)
	}
	return r, nil
}

func (d *Driver) forget(id netdriver.EndpointID) error {
	err := os.Remove(d.recordPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// records reads those that fit, in the order of their endpoints' IDs. One that cannot be read is an error.
func (d *Driver) records(fits func(*record) bool) ([]*record, error) {
	entries, err := os.ReadDir(d.recordDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []*record
	for _, f := range entries {
		id, ok := strings.CutSuffix(f.Name(), ".json")
		if !ok {
			continue // unfinished
		}
		r, err := d.recall(netdriver.EndpointID(id))
		if err != nil {
			return nil, err
		}
		if r != nil && fits(r) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b *record) int { return strings.Compare(string(a.Endpoint), string(b.Endpoint)) })
	return out, nil
}
