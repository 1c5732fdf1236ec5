package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/minictl/minictl/runtime/container"
	"github.com/minictl/minictl/runtime/oci"
)

// borrow fills in what a container takes of this host and of other containers: devices, namespaces, shared memory, init.
func (e *Engine) borrow(s *container.Spec, w *oci.Wish) (err error) {
	h := s.HostConfig
	if w.Devices, err = hostDevices(h); err != nil {
		return err
	}
	if w.BlockDevices, err = blockDevices(&h.Resources); err != nil {
		return err
	}
	if h.PidMode.IsContainer() {
		st, _, err := e.donor("PID", h.PidMode.Container())
		if err != nil {
			return err
		}
		w.PIDNS = fmt.Sprintf("/proc/%d/ns/pid", st.Pid)
	}
	switch {
	case h.IpcMode.IsShareable():
		if w.ShmDir, err = e.makeShm(s); err != nil {
			return err
		}
	case h.IpcMode.IsContainer():
		st, donor, err := e.donor("IPC", h.IpcMode.Container())
		if err != nil {
			return err
		}
		if !donor.HostConfig.IpcMode.IsShareable() {
			return invalid("cannot join IPC of a container %s: non-shareable IPC (hint: use IpcMode:shareable for the donor container)", h.IpcMode.Container())
		}
		w.IPCNS, w.ShmDir = fmt.Sprintf("/proc/%d/ns/ipc", st.Pid), e.shmDir(donor.ID)
	}
	// Only a pid 1 inherits orphans.
	if h.Init != nil && *h.Init && (h.PidMode == "" || h.PidMode.IsPrivate()) {
		if w.Init, err = e.cfg.Init(filepath.Join(e.cfg.Root, "init")); err != nil {
			return err
		}
	}
	return nil
}

// donor is the container whose namespace another one joins.
func (e *Engine) donor(what, ref string) (container.Status, container.Spec, error) {
	b, err := e.find(ref)
	if err != nil {
		return container.Status{}, container.Spec{}, err
	}
	st := b.statusCopy()
	switch {
	case st.State == mobycontainer.StateRestarting:
		err = conflict("cannot join %s of a container %s: it is restarting, wait until the container is running", what, ref)
	case !st.Running():
		err = conflict("cannot join %s of a non running container: %s", what, ref)
	}
	return st, b.specCopy(), err
}

// shmDir is where the /dev/shm of a container stands that shares it (--ipc shareable): outside, so that others can have
// it too. A mount inside a container can't be taken from there.
func (e *Engine) shmDir(id string) string { return filepath.Join(e.cfg.ExecRoot, "shm", short(id)) }

func (e *Engine) makeShm(s *container.Spec) (string, error) {
	dir := e.shmDir(s.ID)
	e.removeShm(s.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make shared memory: %w", err)
	}
	size := s.HostConfig.ShmSize
	if size == 0 {
		size = 64 << 20 // docker's default
	}
	if err := unix.Mount("shm", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=1777,size="+strconv.FormatInt(size, 10)); err != nil {
		return "", fmt.Errorf("make shared memory: %w", err)
	}
	return dir, nil
}

// removeShm forgets the shared memory; who still has it keeps it.
func (e *Engine) removeShm(id string) {
	dir := e.shmDir(id)
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		e.log.Error("unmount shared memory", "container", id, "err", err)
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.log.Error("remove shared memory", "container", id, "err", err)
	}
}

// blockDevices gives the numbers of the devices that have limits of their own.
func blockDevices(r *mobycontainer.Resources) (map[string]specs.LinuxBlockIODevice, error) {
	out := map[string]specs.LinuxBlockIODevice{}
	for _, path := range oci.BlockDevices(r) {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return nil, invalid("limit block device %s: %v", path, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFBLK {
			return nil, invalid("limit block device %s: not a block device", path)
		}
		out[path] = specs.LinuxBlockIODevice{Major: int64(unix.Major(uint64(st.Rdev))), Minor: int64(unix.Minor(uint64(st.Rdev)))}
	}
	return out, nil
}

// hostDevices are the devices of --device, and all of them for a privileged container.
func hostDevices(h *mobycontainer.HostConfig) ([]oci.Device, error) {
	var out []oci.Device
	if h.Privileged {
		all, err := devicesBelow("/dev", "/dev", "rwm")
		if err != nil {
			return nil, fmt.Errorf("list this host's devices: %w", err)
		}
		out = all
	}
	for _, m := range h.Devices {
		inside, access := m.PathInContainer, m.CgroupPermissions
		if inside == "" {
			inside = m.PathOnHost
		}
		if access == "" {
			access = "rwm"
		}
		devices, err := devicesBelow(m.PathOnHost, inside, access)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, invalid("error gathering device information while adding custom device %q: no such file or directory", m.PathOnHost)
		}
		if err == nil && len(devices) == 0 {
			return nil, invalid("error gathering device information while adding custom device %q: not a device node", m.PathOnHost)
		}
		if err != nil {
			return nil, fmt.Errorf("look at device %s: %w", m.PathOnHost, err)
		}
		for _, d := range devices {
			if !slices.ContainsFunc(out, func(o oci.Device) bool { return o.Node.Path == d.Node.Path }) {
				out = append(out, d)
			}
		}
	}
	return out, nil
}

// devicesBelow gives the device at a path, or all below it when it is a folder. What a container has of its own in /dev,
// terminals and shared memory, is left out.
func devicesBelow(host, inside, access string) ([]oci.Device, error) {
	if !filepath.IsAbs(host) { // the empty one would be the daemon's own folder
		return nil, fs.ErrNotExist
	}
	root, err := filepath.EvalSymlinks(host)
	if err != nil {
		return nil, err
	}
	var out []oci.Device
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) && path != root {
				return nil // a device that has just been unplugged
			}
			return err
		}
		if entry.IsDir() {
			if slices.Contains([]string{"/dev/pts", "/dev/shm", "/dev/fd", "/dev/mqueue", "/dev/.udev"}, path) {
				return fs.SkipDir
			}
			return nil
		}
		if path == "/dev/console" || path == "/dev/ptmx" {
			return nil
		}
		d, ok := device(path)
		if ok {
			d.Path = filepath.Join(inside, path[len(root):])
			out = append(out, oci.Device{Node: d, Access: access})
		}
		return nil
	})
	return out, err
}

// device describes a device node; ok is false for any other file.
func device(path string) (d specs.LinuxDevice, ok bool) {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return d, false
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		d.Type = "c"
	case unix.S_IFBLK:
		d.Type = "b"
	default:
		return d, false
	}
	mode := os.FileMode(st.Mode & 0o777)
	d.Major, d.Minor = int64(unix.Major(uint64(st.Rdev))), int64(unix.Minor(uint64(st.Rdev)))
	d.FileMode, d.UID, d.GID = &mode, &st.Uid, &st.Gid
	return d, true
}
