package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/minictl/minictl/cmd/internal/engine"
	"github.com/minictl/minictl/dnsd"
	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/firewall"
	"github.com/minictl/minictl/netdriver/nl"
	"github.com/minictl/minictl/netdriver/sandbox"
	"github.com/minictl/minictl/runtime/ctrd"
	"github.com/minictl/minictl/runtime/oci"
)

// cgroupParent is where containers' cgroups stand.
const cgroupParent = "/minictl"

// cgroupRoot is where the hierarchies are mounted: v2 here, or v1 one below each name.
const cgroupRoot = "/sys/fs/cgroup"

// appArmorProfile is the profile of containers that ask for none. Docker's own is left to docker.
const appArmorProfile = "minictl-default"

// hostFacts is what container specifications depend on besides the container.
func hostFacts() (oci.Host, error) {
	h := oci.Host{CgroupParent: cgroupParent, Capabilities: boundingSet(), Rlimits: map[string]specs.POSIXRlimit{}}
	for name, which := range map[string]int{"RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_CORE": unix.RLIMIT_CORE} {
		var r unix.Rlimit
		if unix.Getrlimit(which, &r) == nil {
			h.Rlimits[name] = specs.POSIXRlimit{Type: name, Hard: r.Max, Soft: r.Cur}
		}
	}
	var st unix.Statfs_t
	if unix.Statfs(cgroupRoot, &st) == nil {
		h.CgroupV2 = st.Type == unix.CGROUP2_SUPER_MAGIC
	}
	h.Missing = missingLimits(cgroupRoot, h.CgroupV2)
	h.NotRun = notRun()
	// An impossible descriptor: all that is asked is whether the call is there, and allowed.
	h.RecursiveReadOnly = errors.Is(unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}), unix.EBADF)
	var err error
	h.AppArmor, err = ctrd.LoadAppArmor(appArmorProfile)
	return h, err
}

// evidence is what shows whether the kernel has a limit: one of the files is enough. On v2 they stand in child cgroups
// only; where there is no child with the controller yet, its name in the root's list must do.
type evidence struct {
	files      []string
	controller string // v2's; empty: the files decide
	witness    string // a file that every child with the controller has
}

// limitFiles are the kernel's files behind each limit that not every kernel has (blkio-controller.rst, memory.rst,
// cgroup-v2.rst). Weights are not in a v1 hierarchy's root, but what BFQ counts is.
func limitFiles(v2 bool) map[string]evidence {
	if v2 {
		rate := evidence{[]string{"*/io.max"}, "io", "*/io.stat"}
		return map[string]evidence{
			oci.FlagBlkioWeight:       {[]string{"*/io.bfq.weight", "*/io.weight"}, "io", "*/io.stat"},
			oci.FlagBlkioWeightDevice: {[]string{"*/io.bfq.weight"}, "io", "*/io.stat"},
			oci.FlagDeviceReadBps:     rate,
			oci.FlagDeviceWriteBps:    rate,
			oci.FlagDeviceReadIOps:    rate,
			oci.FlagDeviceWriteIOps:   rate,
			oci.FlagMemorySwap:        {[]string{"*/memory.swap.max"}, "memory", "*/memory.max"},
			oci.FlagSwappiness:        {},
			oci.FlagOomKillDisable:    {},
		}
	}
	const bfq = "blkio/blkio.bfq.io_serviced"
	out := map[string]evidence{}
	for flag, files := range map[string][]string{
		oci.FlagBlkioWeight:       {"blkio/*/blkio.weight", "blkio/*/blkio.bfq.weight", bfq},
		oci.FlagBlkioWeightDevice: {"blkio/*/blkio.weight_device", "blkio/*/blkio.bfq.weight_device", bfq},
		oci.FlagDeviceReadBps:     {"blkio/blkio.throttle.read_bps_device"},
		oci.FlagDeviceWriteBps:    {"blkio/blkio.throttle.write_bps_device"},
		oci.FlagDeviceReadIOps:    {"blkio/blkio.throttle.read_iops_device"},
		oci.FlagDeviceWriteIOps:   {"blkio/blkio.throttle.write_iops_device"},
		oci.FlagSwappiness:        {"memory/memory.swappiness"},
		oci.FlagOomKillDisable:    {"memory/memory.oom_control"},
		oci.FlagMemorySwap:        {"memory/memory.memsw.limit_in_bytes", "memory/*/memory.memsw.limit_in_bytes"},
	} {
		out[flag] = evidence{files: files}
	}
	return out
}

// missingLimits are the limits that the kernel lacks, by the files below the root of the hierarchies.
func missingLimits(root string, v2 bool) []string {
	exists := func(pattern string) bool {
		found, _ := filepath.Glob(filepath.Join(root, pattern)) // errs only on a bad pattern
		return len(found) > 0
	}
	list, _ := os.ReadFile(filepath.Join(root, "cgroup.controllers")) // v2's alone
	controllers := strings.Fields(string(list))
	var out []string
	for flag, e := range limitFiles(v2) {
		unknown := e.controller != "" && !exists(e.witness) && slices.Contains(controllers, e.controller)
		if !unknown && !slices.ContainsFunc(e.files, exists) {
			out = append(out, flag)
		}
	}
	slices.Sort(out)
	return out
}

// boundingSet is the daemon's own capability bounding set (capabilities(7)), read from /proc/self/status.
func boundingSet() []string {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			bits, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			if err != nil {
				return nil
			}
			return oci.CapabilityNames(bits)
		}
	}
	return nil
}

// routes are the prefixes that this host routes somewhere.
func routes() ([]netip.Prefix, error) {
	c, err := nl.Here()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Routes()
}

// sandboxes adapts netdriver/sandbox to the engine.
type sandboxes struct{}

// Create makes a namespace.
func (sandboxes) Create(ctx context.Context, path string) (netdriver.Sandbox, error) {
	return sandbox.Create(ctx, path)
}

// Remove removes one.
func (sandboxes) Remove(path string) error { return sandbox.Remove(path) }

// Unplug empties one.
func (sandboxes) Unplug(path string) error { return sandbox.Unplug(path) }

// List names those in a folder.
func (sandboxes) List(dir string) ([]string, error) { return sandbox.List(dir) }

// SetSysctl writes a setting of one.
func (sandboxes) SetSysctl(path, key, value string) error {
	return sandbox.Do(path, func() error { return nl.SetSysctl(key, value) })
}

// Dial connects from inside one.
func (sandboxes) Dial(ctx context.Context, path, network, address string) (c net.Conn, err error) {
	err = sandbox.Do(path, func() error {
		c, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// OpenResolver opens sockets on 127.0.0.11 inside the namespace, on ports of the kernel's choice (a container may want
// port 53 for itself), and leads port 53 of that address to them.
func (sandboxes) OpenResolver(ctx context.Context, path string) (*engine.ResolverSockets, error) {
	var r engine.ResolverSockets
	err := sandbox.Do(path, func() (err error) {
		var lc net.ListenConfig
		if r.UDP, err = lc.ListenPacket(ctx, "udp4", dnsd.Address+":0"); err != nil {
			return err
		}
		if r.TCP, err = lc.Listen(ctx, "tcp4", dnsd.Address+":0"); err != nil {
			return errors.Join(err, r.UDP.Close())
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listen in %s: %w", path, err)
	}
	udp, tcp := portOf(r.UDP.LocalAddr()), portOf(r.TCP.Addr())
	if err := firewall.RedirectDNS(ctx, path, udp, tcp); err != nil {
		r.Close()
		return nil, err
	}
	return &r, nil
}

func portOf(a net.Addr) uint16 { return netip.MustParseAddrPort(a.String()).Port() }
