package lab

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// TB is the part of testing.TB that the lab needs. A program that wants a lab outside "go test" implements these six
// methods; Fatalf must not return.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Failed() bool
	Cleanup(func())
}

// patience bounds every wait for something that takes milliseconds when it works at all.
const patience = 20 * time.Second

// Lab is one underlay and the hosts on it. Its methods are for one goroutine at a time, a Host's for any number.
type Lab struct {
	tb  TB
	id  string // six hex digits, unique on this machine
	dir string // state on disk: one folder per host
	bin string // the minictl binary under test
	cg  []hierarchy

	underlay *underlay
	hosts    []*Host
	next     int // last octet of the next host's address
	nextOut  int // the same for machines outside (Client)

	closing sync.Once
}

// New makes an underlay without hosts. The lab closes itself when the test ends; a failed test first gets a dump of every
// host. It needs root: without it the test fails under CI=true and is skipped otherwise, where the TB can skip.
func New(tb TB) *Lab {
	tb.Helper()
	requireRoot(tb)
	if os.Getenv(readyEnv) != strconv.Itoa(os.Getpid()) {
		tb.Fatalf("lab: this program never called lab.Reexec: write func TestMain(m *testing.M) { lab.Main(m) }")
	}
	var b [3]byte
	rand.Read(b[:]) // never fails (crypto/rand's own promise)
	l := &Lab{tb: tb, id: hex.EncodeToString(b[:]), next: 11, nextOut: 201}
	l.cg = hierarchies()
	// Short, since unix socket paths below it may hold 107 characters.
	l.dir = filepath.Join(os.TempDir(), "mclab-"+l.id)
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		tb.Fatalf("lab: make state folder: %v", err)
	}
	tb.Cleanup(l.Close)
	u, err := startUnderlay(l)
	if err != nil {
		tb.Fatalf("lab: start underlay: %v", err)
	}
	l.underlay = u
	return l
}

// requireRoot stops a test that cannot work. testing.T has Skip, a demo's TB need not.
func requireRoot(tb TB) {
	tb.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if s, ok := tb.(interface{ Skip(...any) }); ok && os.Getenv("CI") != "true" {
		s.Skip("lab: needs root: run it with sudo")
	}
	tb.Fatalf("lab: needs root: run it with sudo")
}

// ID is the lab's six hex digits; they are part of its folder's and cgroup's name.
func (l *Lab) ID() string { return l.id }

// Dir is the lab's folder on disk. It is gone after Close.
func (l *Lab) Dir() string { return l.dir }

// Hosts are the hosts made so far, in order, clients included.
func (l *Lab) Hosts() []*Host { return append([]*Host(nil), l.hosts...) }

// Host boots a host with the next address: 192.168.66.11 for the first. The name is its host name and its port's name on
// the underlay, so 15 characters at most.
func (l *Lab) Host(name string) *Host {
	l.tb.Helper()
	h := l.add(name, l.next)
	l.next++
	return h
}

// Client boots another machine on the underlay, 192.168.66.201 and up: someone outside the cluster who fetches a page.
func (l *Lab) Client(name string) *Host {
	l.tb.Helper()
	h := l.add(name, l.nextOut)
	l.nextOut++
	return h
}

func (l *Lab) add(name string, octet int) *Host {
	l.tb.Helper()
	h := newHost(l, name, octet)
	l.hosts = append(l.hosts, h)
	if err := h.boot(); err != nil {
		l.tb.Fatalf("lab: boot host %s: %v", name, err)
	}
	return h
}

// Close ends every process of the lab, then removes its cgroups and its folder, and fails the test when something of it
// is still there. It may be called twice.
func (l *Lab) Close() { l.closing.Do(l.close) }

func (l *Lab) close() {
	l.tb.Helper()
	if l.tb.Failed() {
		for _, h := range l.hosts {
			h.Dump()
		}
	}
	for _, h := range l.hosts {
		if err := h.halt(); err != nil {
			l.tb.Errorf("lab: halt %s: %v", h.name, err)
		}
	}
	if l.underlay != nil {
		if err := l.underlay.stop(); err != nil {
			l.tb.Errorf("lab: stop underlay: %v", err)
		}
	}
	if err := removeCgroups(l.cg, l.cgroupName()); err != nil {
		l.tb.Errorf("lab: %v", err)
	}
	// Mounts below the folder existed in the hosts' mount namespaces only; with the last process they are gone, but the
	// kernel lets go of them a moment later.
	err := poll(patience, func() error { return os.RemoveAll(l.dir) })
	if err != nil {
		l.tb.Errorf("lab: remove state folder: %v", err)
	}
}

func (l *Lab) cgroupName() string { return "mclab-" + l.id }

// Eventually polls fn every 10 ms until it returns nil, and fails the test with its last error after d.
func (l *Lab) Eventually(d time.Duration, fn func() error) {
	l.tb.Helper()
	if err := poll(d, fn); err != nil {
		l.tb.Fatalf("lab: still wrong after %v: %v", d, err)
	}
}

// poll calls fn at once and then every 10 ms until it returns nil; after d it gives up with fn's last error.
func poll(d time.Duration, fn func() error) error {
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := fn()
		if err == nil {
			return nil
		}
		select {
		case <-deadline.C:
			return fmt.Errorf("gave up after %v: %w", d, err)
		case <-tick.C:
		}
	}
}
