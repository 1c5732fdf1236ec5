package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Host is one machine of the lab.
type Host struct {
	lab  *Lab
	name string
	addr netip.Addr
	dir  string

	mu     sync.Mutex
	init   *holder // nil while the host is down
	procs  []*Process
	daemon *Process
	bin    string   // the minictl binary of this host alone; empty: the lab's
	verb   string   // of the daemon's last start: daemon or witness
	flags  []string // of the daemon's last start
}

func newHost(l *Lab, name string, octet int) *Host {
	a := netip.AddrFrom4([4]byte{192, 168, 66, byte(octet)})
	return &Host{lab: l, name: name, addr: a, dir: filepath.Join(l.dir, name)}
}

// Name is the host's name, also known to its kernel and in its /etc/hosts.
func (h *Host) Name() string { return h.name }

// Addr is eth0's address on the underlay.
func (h *Host) Addr() netip.Addr { return h.addr }

// Renumber gives eth0 another address on the underlay in the place of the one that it has, as a DHCP server may.
func (h *Host) Renumber(now netip.Addr) {
	h.MustRun("ip", "addr", "del", h.addr.String()+"/24", "dev", "eth0")
	h.MustRun("ip", "addr", "add", now.String()+"/24", "dev", "eth0")
	h.MustRun("ip", "route", "replace", "default", "via", Gateway, "dev", "eth0")
	h.addr = now
}

// Dir is the host's folder on the real disk: logs, and data, which is its /var/lib/minictl.
func (h *Host) Dir() string { return h.dir }

// Path is how a file of the host is opened from outside it, its sockets included.
func (h *Host) Path(file string) string {
	return filepath.Join("/proc", fmt.Sprint(h.pid()), "root", file)
}

// pid is the host's pid 1 as seen from outside; 0 while it is down.
func (h *Host) pid() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.init == nil {
		return 0
	}
	return h.init.pid()
}

// Pid is the host's pid 1 as seen from outside, for nsenter -a -t and debuggers; 0 while it is down.
func (h *Host) Pid() int { return h.pid() }

func (h *Host) cgroup() string { return h.lab.cgroupName() + "/" + h.name }

// boot starts pid 1, plugs the cable in and waits until the host is furnished.
func (h *Host) boot() error {
	if len(h.name) > 15 {
		return fmt.Errorf("name %q: longer than an interface name's 15 characters", h.name)
	}
	if err := errors.Join(os.MkdirAll(h.dir, 0o755), makeCgroups(h.lab.cg, h.cgroup())); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c := hostConf{
		Name: h.name, Dir: h.dir, Self: self, Cgroup: h.cgroup(), Cgroups: h.lab.cg,
		Hosts:  fmt.Sprintf("127.0.0.1\tlocalhost\n::1\tlocalhost\n%s\t%s\n", h.addr, h.name),
		Resolv: "nameserver " + Gateway + "\n",
	}
	flags := uintptr(unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID)
	init, err := startHolder(roleBoot, c, filepath.Join(h.dir, "init.log"), flags)
	if err != nil {
		return err
	}
	h.mu.Lock()
	h.init = init
	h.mu.Unlock()
	err = joinCgroups(h.lab.cg, h.cgroup(), "cgroup.procs", init.pid())
	if err == nil {
		err = h.lab.underlay.plug(h)
	}
	if err == nil {
		_, err = init.in.Write([]byte("go\n"))
	}
	if err == nil {
		err = init.call("ready")
	}
	return err
}

// halt cuts the host's power: all its processes die, /run is lost, the disk stays.
func (h *Host) halt() error {
	h.mu.Lock()
	init, procs := h.init, h.procs
	h.init, h.procs, h.daemon = nil, nil, nil
	h.mu.Unlock()
	if init == nil {
		return nil
	}
	err := init.stop()
	for _, p := range procs {
		<-p.done
	}
	return err
}

// Halt cuts the host's power: all its processes die at once, its disk stays. Close does the same for every host.
func (h *Host) Halt() {
	h.lab.tb.Helper()
	if err := h.halt(); err != nil {
		h.lab.tb.Fatalf("lab: halt %s: %v", h.name, err)
	}
}

// Boot starts a halted host again: same name, address and disk, empty /run.
func (h *Host) Boot() {
	h.lab.tb.Helper()
	// The port on the underlay goes with the host's end of the cable, but only when the kernel gets round to its namespace.
	err := poll(patience, func() error {
		gone := within(h.lab.underlay.pid(), netOnly, func() error { return absent(h.name) })
		if gone == nil {
			return nil
		}
		return runIn(h.lab.underlay.pid(), netOnly, "", "ip", "link", "del", "dev", h.name)
	})
	// Containers' cgroups would be gone after a real power cut, too.
	err = errors.Join(err, removeCgroups(h.lab.cg, h.cgroup()))
	if err == nil {
		err = h.boot()
	}
	if err != nil {
		h.lab.tb.Fatalf("lab: boot %s again: %v", h.name, err)
	}
}

// absent reports an error while a link of that name is in the thread's network namespace.
func absent(link string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(link)
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req); errors.Is(err, unix.ENODEV) {
		return nil
	}
	return fmt.Errorf("link %s is still there", link)
}
