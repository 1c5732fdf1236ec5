package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// TestProgram starts the daemon as a user does, by the program that is installed: it keeps the daemon's on the disk, where
// the next start finds it, and without a place for it runs all the same. What ends at once leaves nothing.
func TestProgram(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := l.Host("host1")
	bin, err := lab.Binary()
	if err != nil {
		t.Fatal(err)
	}
	const programs = "/var/lib/minictl/programs"
	wantMatch(t, "validate", h.MustRun("sh", "-c", `"$0" daemon --validate 2>&1`, bin), `^configuration OK\n$`)
	wantMatch(t, "help", h.MustMinictl("help", "daemon"), `(?s)^Run the daemon on this host\..*--data-root`)
	wantMatch(t, "completion", h.MustMinictl("__complete", "daemon", "--data"), `(?m)^--data-root\t`)
	if _, errOut, code := h.Minictl("-H", "unix:///x", "daemon"); code != 1 || !strings.Contains(errOut, "--host in front of daemon") {
		t.Errorf("code %d: %s", code, errOut)
	}
	h.MustRun("rm", "-rf", programs)
	h.MustMinictl("daemon", "--help")
	h.MustRun("test", "!", "-e", programs)

	// run starts the daemon, gives the program that runs then, and ends it.
	run := func(flags ...string) string {
		t.Helper()
		p := h.Start(append([]string{bin, "daemon"}, flags...)...)
		l.Eventually(patient, func() error {
			_, errOut, code := h.Minictl("version")
			if code != 0 {
				return errf("%s\n%s", errOut, p.Output())
			}
			return nil
		})
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.Pid()))
		if err != nil {
			t.Error(err)
		}
		args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.Pid()))
		if want := bin + "\x00daemon\x00"; err != nil || !strings.HasPrefix(string(args), want) {
			t.Errorf("its arguments are %q, %v: want %q", args, err, want)
		}
		if err := p.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if code, err := p.Wait(patient); code != 0 || err != nil {
			t.Errorf("code %d, %v: %s", code, err, p.Output())
		}
		return exe
	}
	h.MustRun("mkdir", "-p", programs+"/0123456789abcdef")
	first := run()
	wantMatch(t, "program", first, `/programs/[0-9a-f]{16}/minictl$`)
	inode := h.MustRun("stat", "-c", "%i %Z", programs+"/"+filepath.Base(filepath.Dir(first))+"/minictl")
	if got := run(); got != first {
		t.Errorf("the second start runs %s, the first %s", got, first)
	}
	if got := h.MustRun("stat", "-c", "%i %Z", programs+"/"+filepath.Base(filepath.Dir(first))+"/minictl"); got != inode {
		t.Errorf("unpacked again: %s, was %s", got, inode)
	}
	if got := lines(h.MustRun("ls", "-A", programs)); len(got) != 1 {
		t.Errorf("programs of other versions stay: %q", got)
	}
	h.MustRun("rm", "-rf", programs)
	h.MustRun("mount", "-t", "tmpfs", "-o", "noexec", "tmpfs", "/var/lib/minictl")
	wantMatch(t, "without a place to run it from", run("--data-root", "/run/data"), `memfd:minictl`)
}
