package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// hostConf is what a host's pid 1 needs to know.
type hostConf struct {
	Name    string
	Dir     string // its folder on disk
	Self    string // this program
	Cgroup  string // its cgroup's path in every hierarchy
	Cgroups []hierarchy
	Hosts   string // text of /etc/hosts
	Resolv  string // text of /etc/resolv.conf
}

// bootMain waits until the parent has moved us into the host's cgroup ("go"), makes that the root of a cgroup namespace,
// and becomes hostMain. The namespace is a thread's at first; exec makes it the process's.
func bootMain() error {
	var b [1]byte
	for b[0] != '\n' { // byte by byte: what follows the line is hostMain's
		if _, err := os.Stdin.Read(b[:]); err != nil {
			return err
		}
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("make cgroup namespace: %w", err)
	}
	var c hostConf
	if err := conf(&c); err != nil {
		return err
	}
	env := []string{roleEnv + "=" + roleHost}
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, roleEnv+"=") {
			env = append(env, kv)
		}
	}
	return unix.Exec(c.Self, []string{"minictl-lab-" + c.Name}, env)
}

// hostMain is a host's pid 1: it furnishes the host, says so, and reaps orphans (shims are adopted by it) until its
// input ends.
func hostMain() error {
	var c hostConf
	if err := conf(&c); err != nil {
		return err
	}
	orphans := make(chan os.Signal, 1)
	signal.Notify(orphans, unix.SIGCHLD)
	go func() {
		for range orphans {
			// Signals coalesce, so one may stand for many children.
			for {
				if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 || err != nil {
					break
				}
			}
		}
	}()
	furnished := furnish(c)
	return serve(func(verb string, _ []string) error {
		if verb != "ready" {
			return fmt.Errorf("unknown command %q", verb)
		}
		return furnished
	})
}

// furnish builds the host's view of the file system.
func furnish(c hostConf) error {
	if err := unix.Sethostname([]byte(c.Name)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	steps := []func(hostConf) error{privateMounts, dropForeign, mountSystem, mountState, mountEtc, leafCgroup, shareMounts}
	for _, s := range steps {
		if err := s(c); err != nil {
			return err
		}
	}
	return nil
}

func privateMounts(hostConf) error { return mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }

// dropForeign lets go of this namespace's copies of what other programs on the machine have mounted for a while, such as
// other tests' network namespaces and layers: they would vanish from the host's listing whenever those programs end.
func dropForeign(c hostConf) error {
	tmp := filepath.Clean(os.TempDir()) + "/"
	mounts, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		passing := i.FSType == "nsfs" || strings.HasPrefix(i.Mountpoint, tmp) && !strings.HasPrefix(i.Mountpoint, c.Dir+"/")
		return !passing, false
	})
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	for _, m := range slices.Backward(mounts) { // what is mounted inside goes first
		if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", m.Mountpoint, err)
		}
	}
	return nil
}

// shareMounts makes the root shared among the host's own processes, as systemd does and container engines expect.
func shareMounts(hostConf) error { return mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "") }

// mountSystem gives the host its own /proc (its pid namespace) and /sys (its links), and of the cgroup hierarchies only
// its own cgroup, which it takes for the root.
func mountSystem(c hostConf) error {
	old := filepath.Join(c.Dir, "cgroup")
	if err := errors.Join(os.MkdirAll(old, 0o755), mount(cgroupRoot, old, "", unix.MS_BIND|unix.MS_REC, "")); err != nil {
		return err
	}
	if err := mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	if err := mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	for _, f := range []string{"bpf", "tracefs", "securityfs"} {
		optionalSys(f)
	}
	alone := len(c.Cgroups) == 1 && c.Cgroups[0].Mount == cgroupRoot
	if !alone {
		if err := mount("tmpfs", cgroupRoot, "tmpfs", 0, "mode=755"); err != nil {
			return err
		}
		if err := copyLinks(old, cgroupRoot); err != nil {
			return err
		}
	}
	for _, h := range c.Cgroups {
		from := filepath.Join(old, strings.TrimPrefix(h.Mount, cgroupRoot), c.Cgroup)
		if err := errors.Join(os.MkdirAll(h.Mount, 0o755), mount(from, h.Mount, "", unix.MS_BIND, "")); err != nil {
			return err
		}
	}
	if err := unix.Unmount(old, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", old, err)
	}
	return nil
}

// optionalSys mounts what a daemon may look for below /sys but no kernel must have.
func optionalSys(fsType string) {
	at := map[string]string{"bpf": "/sys/fs/bpf", "tracefs": "/sys/kernel/tracing", "securityfs": "/sys/kernel/security"}[fsType]
	if _, err := os.Stat(at); err == nil {
		_ = mount(fsType, at, fsType, 0, "")
	}
}

// copyLinks repeats version 1's aliases, such as cpu -> cpu,cpuacct.
func copyLinks(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Type()&fs.ModeSymlink == 0 {
			continue
		}
		target, err := os.Readlink(filepath.Join(from, e.Name()))
		if err != nil {
			return err
		}
		if err := os.Symlink(target, filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// mountState gives the host an empty /run, a /var/lib with nothing but its own minictl folder, and a /tmp for daemons.
func mountState(c hostConf) error {
	if err := mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return err
	}
	if err := mount("tmpfs", "/var/lib", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return err
	}
	disk := filepath.Join(c.Dir, "data")
	err := errors.Join(os.MkdirAll("/run/lock", 0o755), os.MkdirAll("/run/netns", 0o755),
		os.MkdirAll("/var/lib/minictl", 0o755), os.MkdirAll(disk, 0o755))
	if err != nil {
		return err
	}
	return mount(disk, "/var/lib/minictl", "", unix.MS_BIND, "")
}

// mountEtc lays a private layer over /etc, so that the host may write there, and puts its names into it. The layer is a
// tmpfs because the machine's own root may be an overlay, which cannot carry another one's upper folder.
func mountEtc(c hostConf) error {
	layer := filepath.Join(c.Dir, "etc")
	if err := errors.Join(os.MkdirAll(layer, 0o755), mount("tmpfs", layer, "tmpfs", 0, "mode=755")); err != nil {
		return err
	}
	upper, work := filepath.Join(layer, "upper"), filepath.Join(layer, "work")
	if err := errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)); err != nil {
		return err
	}
	files := map[string]string{"hostname": c.Name + "\n", "hosts": c.Hosts, "resolv.conf": c.Resolv}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(upper, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return mount("overlay", "/etc", "overlay", 0, "lowerdir=/etc,upperdir="+upper+",workdir="+work)
}

// leafCgroup moves us into a leaf of every version 2 hierarchy: a cgroup that holds processes may not hand controllers
// to its children (kernel: cgroup-v2, "no internal process constraint").
func leafCgroup(c hostConf) error {
	for _, h := range c.Cgroups {
		if !h.V2 {
			continue
		}
		leaf := filepath.Join(h.Mount, leafName)
		if err := os.MkdirAll(leaf, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte("0"), 0o644); err != nil {
			return fmt.Errorf("enter leaf cgroup: %w", err)
		}
		delegate(h.Mount)
	}
	return nil
}

// leafName is the version 2 cgroup of a host's own processes.
const leafName = "init"

func mount(source, target, fsType string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fsType, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", fsType+source, target, err)
	}
	return nil
}
