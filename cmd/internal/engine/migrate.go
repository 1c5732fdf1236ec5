package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	bolt "go.etcd.io/bbolt"

	"github.com/minictl/minictl/runtime/container"
)

// migrations bring a schema to the next version: the first entry leads from version 1 to 2. All that are needed run in
// the one transaction that also writes the new version, so that a file is never in between.
var migrations = []func(*bolt.Tx) error{resolveOldMounts, noReserves, noIPv6, noPlugins}

// migrate brings the file from version from to stateVersion.
func migrate(tx *bolt.Tx, from string) error {
	have, err := strconv.Atoi(from)
	if err != nil || have < 1 {
		return fmt.Errorf("schema version %q is none of minictl's: is this its file?", from)
	}
	want, err := strconv.Atoi(stateVersion)
	if err != nil {
		return err
	}
	if have > want {
		return fmt.Errorf("schema version %s is newer than this minictl's %s: install the newer minictl again", from, stateVersion)
	}
	for v := have; v < want; v++ {
		if err := migrations[v-1](tx); err != nil {
			return fmt.Errorf("bring schema version %d to %d: %w", v, v+1, err)
		}
	}
	return tx.Bucket([]byte("meta")).Put([]byte("version"), []byte(stateVersion))
}

// noReserves has nothing to do: the bucket is there, and a host without a list makes one of what the cluster has set aside
// for it. The version keeps an older daemon from giving such addresses away without striking them off.
func noReserves(*bolt.Tx) error { return nil }

// noIPv6 has nothing to do: what is there has IPv4 alone. The version keeps an older daemon from taking such networks and
// endpoints for half of what they are.
func noIPv6(*bolt.Tx) error { return nil }

// noPlugins has nothing to do: the bucket is there. The version keeps an older daemon from networks whose drivers it cannot
// speak to.
func noPlugins(*bolt.Tx) error { return nil }

// resolveOldMounts writes down the mounts of containers made when they were read from the flags at each start. Volumes
// were refused then, and the image's were not made: such a container goes on without.
func resolveOldMounts(tx *bolt.Tx) error {
	b := tx.Bucket([]byte("containers"))
	changed := map[string][]byte{} // a bucket must not change while it is walked
	err := b.ForEach(func(k, v []byte) error {
		var r record
		if err := json.Unmarshal(v, &r); err != nil {
			return fmt.Errorf("read container %s: %w", k, err)
		}
		if r.Spec.HostConfig == nil {
			return nil
		}
		var err error
		if r.Spec.Mounts, err = oldMounts(r.Spec.HostConfig); err != nil {
			return fmt.Errorf("read container %s: %w", k, err)
		}
		changed[string(k)], err = json.Marshal(r)
		return err
	})
	for k, v := range changed {
		err = errors.Join(err, b.Put([]byte(k), v))
	}
	return err
}

// oldMounts reads each flag by itself: what was taken then (a bind below a tmpfs of the same place, nocopy on a bind) must
// not keep the daemon from starting now.
func oldMounts(h *mobycontainer.HostConfig) ([]container.Mount, error) {
	var out []container.Mount
	add := func(one *mobycontainer.HostConfig) error {
		m, err := container.Mounts(one)
		out = append(out, m...)
		return err
	}
	for _, b := range h.Binds {
		f := strings.SplitN(b, ":", 3)
		if len(f) == 3 {
			f[2] = strings.Join(slices.DeleteFunc(strings.Split(f[2], ","), func(o string) bool { return o == "nocopy" }), ",")
			if f[2] == "" {
				f = f[:2]
			}
		}
		if err := add(&mobycontainer.HostConfig{Binds: []string{strings.Join(f, ":")}}); err != nil {
			return nil, err
		}
	}
	for _, m := range h.Mounts {
		if err := add(&mobycontainer.HostConfig{Mounts: []mount.Mount{m}}); err != nil {
			return nil, err
		}
	}
	return out, nil
}
