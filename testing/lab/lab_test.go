package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain is also the binary under test: called as "… daemon" it is a daemon that only answers pings.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "daemon" {
		os.Exit(fakeDaemon())
	}
	if len(os.Args) > 1 && os.Args[1] == "crash" {
		Reexec()
		crash()
	}
	if len(os.Args) > 1 && os.Args[1] == "args" {
		fmt.Fprintln(os.Stdout, strings.Join(os.Args[2:], "|"))
		os.Exit(3)
	}
	Main(m)
}

func fakeDaemon() int {
	if slices.Contains(os.Args, "--broken") {
		fmt.Fprintln(os.Stdout, "daemon: flag not understood")
		return 9
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	os.Remove(Socket)
	os.MkdirAll(filepath.Dir(Socket), 0o755)
	ln, err := net.Listen("unix", Socket)
	if err != nil {
		fmt.Fprintln(os.Stdout, err)
		return 1
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "OK") })}
	go func() { <-ctx.Done(); srv.Close() }()
	fmt.Fprintln(os.Stdout, "daemon: up")
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return 1
	}
	fmt.Fprintln(os.Stdout, "daemon: bye")
	return 0
}

// program is the TB of a program that is no test.
type program struct{}

func (program) Helper()                   {}
func (program) Logf(s string, a ...any)   { fmt.Fprintf(os.Stdout, s+"\n", a...) }
func (program) Errorf(s string, a ...any) { fmt.Fprintf(os.Stdout, s+"\n", a...) }
func (program) Fatalf(s string, a ...any) { fmt.Fprintf(os.Stdout, s+"\n", a...); os.Exit(1) }
func (program) Failed() bool              { return false }
func (program) Cleanup(func())            {}

// crash makes a lab and dies without a chance to clean up.
func crash() {
	l := New(program{})
	p := l.Host("host1").Start("sh", "-c", "trap '' TERM HUP; sleep 600 & sleep 601")
	fmt.Fprintln(os.Stdout, l.ID(), p.Pid())
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

func TestCrashedProgramLeavesNoProcess(t *testing.T) {
	requireRoot(t)
	out, err := exec.Command(os.Args[0], "crash").Output()
	var id string
	var pid int
	if _, serr := fmt.Sscan(string(out), &id, &pid); serr != nil {
		t.Fatalf("%s: %v, %v", out, serr, err)
	}
	l := &Lab{tb: t, id: id, dir: filepath.Join(os.TempDir(), "mclab-"+id)}
	l.Eventually(time.Minute, func() error {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("process %d of the host lives on: %w", pid, err)
		}
		return nil
	})
	if err := errors.Join(removeCgroups(hierarchies(), l.cgroupName()), os.RemoveAll(l.dir)); err != nil {
		t.Error(err)
	}
	if got := (&recorder{}).leftovers(l); got != "[]" {
		t.Errorf("left behind: %s", got)
	}
}

// reached tells whether a host hears another in the end, however busy the machine is.
func reached(h *Host, to netip.Addr) bool {
	for range 20 {
		if ping(h, to) {
			return true
		}
	}
	return false
}

// ping tells whether a host hears another at once: a closed port that refuses is as good an answer as any, and comes
// faster than the ping program gives up.
func ping(h *Host, to netip.Addr) bool {
	err := h.Do(func() error {
		c, err := net.DialTimeout("tcp", netip.AddrPortFrom(to, 9).String(), 200*time.Millisecond)
		if err == nil {
			c.Close()
		}
		return err
	})
	return errors.Is(err, syscall.ECONNREFUSED)
}

func TestHostsAreMachinesOfTheirOwn(t *testing.T) {
	l := New(t)
	h1, h2 := l.Host("host1"), l.Host("host2")
	if h1.Addr().String() != "192.168.66.11" || h2.Addr().String() != "192.168.66.12" {
		t.Errorf("addresses %v, %v", h1.Addr(), h2.Addr())
	}
	if !reached(h1, h2.Addr()) || !reached(h2, h1.Addr()) {
		t.Error("hosts do not reach each other")
	}
	for _, c := range []struct{ cmd, want string }{
		{"hostname", "host1\n"},
		{"cat /etc/hostname", "host1\n"},
		{"ls /sys/class/net | tr '\n' ' '", "eth0 lo "},
		{"cat /etc/resolv.conf", "nameserver 192.168.66.1\n"},
		{"grep -c host1 /etc/hosts", "1\n"},
		{"ls /var/lib", "minictl\n"},
		{"ls /run/netns", ""},
		{"ls -d /proc/[0-9]* | head -1", "/proc/1\n"},
		{"touch /etc/mine /var/lib/minictl/mine /run/mine && echo ok", "ok\n"},
		{"stat -f -c %T /run /sys", "tmpfs\nsysfs\n"},
		{"ip netns add inner && ip netns exec inner ip -o link | wc -l && ip netns del inner", "1\n"},
	} {
		if got := h1.MustRun("sh", "-c", c.cmd); got != c.want {
			t.Errorf("%s: %q, want %q", c.cmd, got, c.want)
		}
	}
	if out, _, _ := h2.Run(context.Background(), "ls", "/etc/mine", "/run/mine", "/var/lib/minictl/mine"); out != "" {
		t.Errorf("host2 sees host1's files: %s", out)
	}
	if _, err := os.Stat("/etc/mine"); err == nil {
		t.Error("the machine sees host1's /etc")
	}
}

func TestRunTellsHowAProgramEnded(t *testing.T) {
	h := New(t).Host("host1")
	for _, c := range []struct {
		args     []string
		out, err string
		code     int
	}{
		{[]string{"sh", "-c", "echo a; echo b >&2; exit 7"}, "a\n", "b\n", 7},
		{[]string{"sh", "-c", "kill -9 $$"}, "", "", 137},
		{[]string{"no-such-program"}, "", `start no-such-program: exec: "no-such-program": executable file not found in $PATH`, 127},
	} {
		out, errs, code := h.Run(context.Background(), c.args...)
		if out != c.out || errs != c.err || code != c.code {
			t.Errorf("%v: %q, %q, %d", c.args, out, errs, code)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, _, code := h.Run(ctx, "sleep", "60"); code != 137 {
		t.Errorf("stopped by its context: code %d, want 137", code)
	}
	if out, _, _ := h.RunInput(context.Background(), "in", "cat"); out != "in" {
		t.Errorf("standard input: %q", out)
	}
}

func TestFaults(t *testing.T) {
	l := New(t)
	a, b, c := l.Host("a"), l.Host("b"), l.Client("laptop")
	if c.Addr().String() != "192.168.66.201" {
		t.Errorf("client's address %v", c.Addr())
	}
	expect := func(when string, ab, ac bool) {
		t.Helper()
		for _, way := range []struct {
			from, to *Host
			want     bool
		}{{a, b, ab}, {c, a, ac}} {
			ok := ping
			if way.want {
				ok = reached
			}
			if got := ok(way.from, way.to.Addr()); got != way.want {
				t.Errorf("%s: %s reaches %s: %v, want %v", when, way.from.Name(), way.to.Name(), got, way.want)
			}
		}
	}
	expect("at first", true, true)
	l.Partition(b, a)
	expect("a|b", false, true)
	l.Isolate(a)
	expect("a isolated", false, false)
	l.Heal(a, b)
	expect("a|b healed", true, false)
	l.HealAll()
	expect("all healed", true, true)
	l.Loss(a, 100)
	if ping(a, b.Addr()) {
		t.Error("all is lost, but a reaches b")
	}
	l.HealAll()
	l.Loss(a, 1) // accepted by nft
	l.HealAll()
	l.Unplug(a)
	if ping(a, b.Addr()) {
		t.Error("a is unplugged and reaches b")
	}
	l.Plug(a)
	l.Eventually(time.Minute, func() error {
		if !ping(a, b.Addr()) {
			return errors.New("a does not reach b")
		}
		return nil
	})
	l.Drop(b, "udp", 53)
	if !reached(a, b.Addr()) {
		t.Error("drop of one port drops everything")
	}
}

func TestDropOfAPort(t *testing.T) {
	l := New(t)
	a, b := l.Host("a"), l.Host("b")
	if err := b.Do(func() error {
		for _, port := range []string{"81", "82"} {
			ln, err := net.Listen("tcp", ":"+port)
			if err != nil {
				return err
			}
			t.Cleanup(func() { ln.Close() })
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	l.Drop(b, "tcp", 81)
	dial := func(port string, within time.Duration) error {
		return a.Do(func() error {
			c, err := net.DialTimeout("tcp", b.Addr().String()+":"+port, within)
			if err == nil {
				c.Close()
			}
			return err
		})
	}
	if err := dial("81", 300*time.Millisecond); err == nil {
		t.Error("port 81 is open in spite of Drop")
	}
	if err := dial("82", 10*time.Second); err != nil {
		t.Errorf("port 82: %v", err)
	}
}

// resolverTimeout is how long nslookup waits before it asks again.
const resolverTimeout = 5 * time.Second

func TestDNSAnswersAtOnce(t *testing.T) {
	l := New(t)
	l.Name("registry.test", netip.MustParseAddr("192.168.66.200"))
	h := l.Host("host1")
	lookup := func(name string) string {
		out, errs, _ := h.Run(context.Background(), "busybox", "nslookup", name)
		return out + errs
	}
	start := time.Now()
	if got := lookup("registry.test"); !strings.Contains(got, "192.168.66.200") {
		t.Errorf("known name: %s", got)
	}
	if got := lookup("unknown.test"); !strings.Contains(got, "NXDOMAIN") {
		t.Errorf("unknown name: %s", got)
	}
	if d := time.Since(start); d >= resolverTimeout {
		t.Errorf("two answers took %v: one was waited for in vain", d)
	}
}

func TestDaemonsLife(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(binEnv, self)
	h := New(t).Host("host1")
	p := h.Daemon("--flag")
	if !strings.Contains(p.Output(), "daemon: up") {
		t.Errorf("log: %s", p.Output())
	}
	if got := h.MustRun("sh", "-c", "cat /proc/"+h.insidePid(t, p)+"/cgroup | sort -u -t: -k3 | cut -d: -f3 | sort -u"); got != "/\n/init\n" && got != "/init\n" {
		t.Errorf("daemon's cgroups, seen from the host: %q, want its root", got)
	}
	if out, errs, code := h.Minictl("args", "a b"); out != "a b\n" || code != 3 {
		t.Errorf("minictl: %q %q %d", out, errs, code)
	}
	if out, errs, _ := h.Docker("version", "--format", "{{.Client.Os}}"); !strings.HasPrefix(out, "linux") {
		t.Errorf("docker version: %q %q", out, errs)
	}
	other := h.Start("sleep", "600")
	h.KillDaemon()
	if code, err := p.Wait(0); code != 137 || err != nil {
		t.Errorf("killed daemon: %d, %v", code, err)
	}
	p = h.RestartDaemon()
	if !slices.Contains(p.cmd.Args, "--flag") {
		t.Errorf("restarted as %v", p.cmd.Args)
	}
	h.StopDaemon()
	if code, _ := p.Wait(0); code != 0 || !strings.Contains(p.Output(), "daemon: bye") {
		t.Errorf("stopped daemon: %d: %s", code, p.Output())
	}
	if _, err := other.Wait(0); err == nil {
		t.Error("another process of the host ended with the daemon")
	}
}

// insidePid is the process's number in the host's own pid namespace.
func (h *Host) insidePid(t *testing.T, p *Process) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "\nNSpid:")
	line, _, _ := strings.Cut(rest, "\n")
	f := strings.Fields(line)
	return f[len(f)-1]
}

func TestPowerCutKeepsTheDiskAlone(t *testing.T) {
	l := New(t)
	h := l.Host("host1")
	h.MustRun("sh", "-c", "touch /run/lost /var/lib/minictl/kept; mkdir -p /sys/fs/cgroup/*/minictl/x")
	p := h.Start("sh", "-c", "sleep 600 & sleep 601")
	h.Halt()
	if code, err := p.Wait(0); err != nil || code != 137 {
		t.Errorf("process after the power cut: %d, %v", code, err)
	}
	h.Boot()
	if got := h.MustRun("sh", "-c", "ls /run/lost /var/lib/minictl 2>/dev/null; ls -d /sys/fs/cgroup/*/minictl 2>/dev/null; true"); got != "/var/lib/minictl:\nkept\n" {
		t.Errorf("after the reboot: %q", got)
	}
	if !reached(l.Client("laptop"), h.Addr()) {
		t.Error("host is not reached after the reboot")
	}
}

func TestTerminal(t *testing.T) {
	h := New(t).Host("host1")
	tty := h.TTY("sh", "-c", "stty size; read x; stty size; echo got $x; tty; exit 5")
	tty.Expect("24 80", 5*time.Second)
	tty.Resize(30, 100)
	tty.Type("hello\r")
	tty.Expect("30 100", 5*time.Second)
	tty.Expect("got hello", 5*time.Second)
	if code, err := tty.Wait(5 * time.Second); code != 5 || err != nil {
		t.Errorf("code %d, %v\n%s", code, err, tty.Output())
	}
	if strings.Contains(tty.Output(), "not a tty") {
		t.Error(tty.Output())
	}
}
