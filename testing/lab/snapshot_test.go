package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSnapshotSeesWhatADaemonLeaves(t *testing.T) {
	h := New(t).Host("host1")
	before := h.Snapshot()
	if d := Diff(before, h.Snapshot()); d != "" {
		t.Errorf("an idle host differs from itself:\n%s", d)
	}
	for _, c := range []struct{ title, make, undo string }{
		{"links", "ip link add br-x type bridge", "ip link del br-x"},
		{"addresses", "ip addr add 10.9.9.9/32 dev lo", "ip addr del 10.9.9.9/32 dev lo"},
		{"routes", "ip route add 10.8.0.0/16 via 192.168.66.1", "ip route del 10.8.0.0/16"},
		{"rules", "ip rule add from 10.1.1.1 table 7", "ip rule del from 10.1.1.1 table 7"},
		{"neighbours", "ip neigh add 192.168.66.99 lladdr 02:00:00:00:00:01 nud permanent dev eth0", "ip neigh del 192.168.66.99 dev eth0"},
		{"fdb", "bridge fdb add 02:00:00:00:00:01 dev eth0 self permanent", "bridge fdb del 02:00:00:00:00:01 dev eth0 self"},
		{"nft", "nft add table inet minictl", "nft delete table inet minictl"},
		{"listeners", "busybox httpd -f -p 81 -h /run >/dev/null 2>&1 & echo $! >/run/nc; while ! ss -Hlnt | grep -q :81; do :; done", "kill $(cat /run/nc); rm /run/nc; while ss -Hlnt | grep -q :81; do :; done"},
		{"named namespaces", "touch /run/netns/1-0123456789", "rm /run/netns/1-0123456789"},
		{"mounts", "mkdir /run/m; mount -t tmpfs x /run/m", "umount /run/m"},
		{"cgroups", "mkdir -p $(ls -d /sys/fs/cgroup/*/ | head -1)/minictl/abc", "rmdir $(ls -d /sys/fs/cgroup/*/ | head -1)/minictl/abc; rmdir $(ls -d /sys/fs/cgroup/*/ | head -1)/minictl"},
		{"processes", "sleep 600 >/dev/null 2>&1 & echo $! >/run/pid", "kill $(cat /run/pid); while kill -0 $(cat /run/pid) 2>/dev/null; do :; done"},
	} {
		h.MustRun("sh", "-c", c.make)
		got := Diff(before, h.Snapshot())
		if !strings.Contains(got, "== "+c.title+"\n+ ") {
			t.Errorf("%s: not seen:\n%s", c.make, got)
		}
		h.MustRun("sh", "-c", c.undo)
		if d := Diff(before, h.Snapshot()); d != "" {
			t.Errorf("after %s:\n%s", c.undo, d)
		}
	}
}

func TestDiff(t *testing.T) {
	before := Snapshot{{"links", []string{"lo", "eth0"}}, {"nft", []string{"a", "}", "}"}}, {"old", []string{"x"}}}
	after := Snapshot{{"links", []string{"eth0", "lo", "br0", "lo"}}, {"nft", []string{"a", "}"}}, {"new", []string{"y"}}}
	want := "== links\n+ br0\n+ lo\n== nft\n- }\n== old\n- x\n== new\n+ y\n"
	if got := Diff(before, after); got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
	if got := Diff(after, after); got != "" {
		t.Errorf("same: %s", got)
	}
}

func TestFaultTable(t *testing.T) {
	if got, want := faultTable(nil, nil), "table bridge lab\ndelete table bridge lab\n"; got != want {
		t.Errorf("no faults: %q", got)
	}
	got := faultTable(map[[2]string]bool{{"a", "b"}: true}, []string{"x drop"})
	for _, want := range []string{`iifname "a" oifname "b" drop`, `iifname "b" oifname "a" drop`, "x drop"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
}

// recorder is a TB whose failures are only written down.
type recorder struct {
	testing.TB
	text    strings.Builder
	cleanup []func()
}

func (r *recorder) Helper()                   {}
func (r *recorder) Cleanup(f func())          { r.cleanup = append(r.cleanup, f) }
func (r *recorder) Errorf(s string, a ...any) { fmt.Fprintf(&r.text, s+"\n", a...) }
func (r *recorder) Logf(s string, a ...any)   { fmt.Fprintf(&r.text, s+"\n", a...) }
func (r *recorder) Fatalf(s string, a ...any) { r.TB.Helper(); r.TB.Fatalf(s, a...) }
func (r *recorder) Failed() bool              { return true }
func (r *recorder) leftovers(l *Lab) (out string) {
	out = fmt.Sprint(listCgroups(hierarchies(), l.cgroupName()))
	if m, _ := filepath.Glob("/sys/fs/cgroup/*/" + l.cgroupName()); len(m) > 0 {
		out += fmt.Sprint(m)
	}
	if _, err := os.Stat(l.dir); err == nil {
		out += l.dir
	}
	// Every process of the lab inherited or was given the lab's folder somewhere in its environment or arguments.
	for _, kind := range []string{"environ", "cmdline", "mountinfo"} {
		files, _ := filepath.Glob("/proc/[0-9]*/" + kind)
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), l.dir) {
				out += " " + f
			}
		}
	}
	return out
}

func TestCloseLeavesNothingAndExplains(t *testing.T) {
	r := &recorder{TB: t}
	l := New(r)
	h := l.Host("host1")
	h.Start("sh", "-c", "trap '' TERM HUP; echo hello from the log; sleep 600 & mkdir -p /sys/fs/cgroup/*/minictl/c; mount -t tmpfs x /var/lib/minictl; sleep 600")
	h.MustRun("sh", "-c", "ip netns add 1-abc; ip link add in0 netns 1-abc type bridge; setsid sleep 600 >/dev/null 2>&1 &")
	if r.leftovers(l) == "[]" {
		t.Error("the check for leftovers sees nothing of a living lab")
	}
	l.Close()
	l.Close()
	if got := r.leftovers(l); got != "[]" {
		t.Errorf("left behind: %s", got)
	}
	for _, want := range []string{"== links", "hello from the log", "/run/netns/1-abc links", "in0"} {
		if !strings.Contains(r.text.String(), want) {
			t.Errorf("dump has no %q:\n%s", want, r.text.String())
		}
	}
}
