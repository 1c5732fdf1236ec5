package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// TestPackaging makes all there is to install, once, and installs it in both ways.
func TestPackaging(t *testing.T) {
	t.Parallel()
	build := exec.Command("make", "-s", "deb")
	build.Dir = "../.."
	build.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=")
	out, err := build.Output()
	if err != nil {
		t.Fatalf("make deb: %v", err)
	}
	made := lines(string(out))
	deb, err := filepath.Abs(filepath.Join(build.Dir, made[len(made)-1]))
	if err != nil {
		t.Fatal(err)
	}
	t.Run("deb", func(t *testing.T) { t.Parallel(); testDeb(t, deb) })
	t.Run("install", func(t *testing.T) { t.Parallel(); testInstall(t, filepath.Dir(filepath.Dir(deb))) })
}

// testDeb takes the package through its life on a host that is a copy of this machine: installed, upgraded, removed,
// purged. There is no systemd in it, which the scripts must bear.
func testDeb(t *testing.T, deb string) {
	t.Helper()
	l := lab.New(t)
	h := l.Host("host1")
	// The copy is this machine with a writable layer above it. It shares /run, mounts included, with the host.
	h.MustRun("sh", "-ec", `mount -t tmpfs tmpfs /mnt
mkdir /mnt/up /mnt/work /mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/up,workdir=/mnt/work overlay /mnt/root
mount --make-shared /run
for d in proc sys dev run; do mount --rbind /$d /mnt/root/$d; done
cp "$0" /mnt/root/minictl.deb`, deb)
	inside := func(script string) string {
		t.Helper()
		return h.MustRun("chroot", "/mnt/root", "sh", "-ec", "exec 2>&1\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\n"+script)
	}
	got := inside(`dpkg --no-triggers --force-depends -i /minictl.deb >/dev/null
dpkg --verify minictl
getent group minictl | cut -d: -f1
minictl --version
minictl daemon --validate
ls /usr/share/man/man1/minictl-run.1.gz /usr/share/bash-completion/completions/minictl /usr/lib/systemd/system/minictl.service
grep ExecStart= /usr/lib/systemd/system/minictl.service
dpkg --no-triggers --force-depends -i /minictl.deb >/dev/null
dpkg -s minictl | grep Status`)
	for _, want := range []string{"minictl\nminictl version ", "configuration OK\n", "ExecStart=/usr/bin/minictl daemon\n", "Status: install ok installed\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("installed: no %q in:\n%s", want, got)
		}
	}
	// What a daemon left, removal clears up; what is the user's, only purging does.
	h.Daemon()
	loadImages(t, h)
	h.MustMinictl("run", "-d", "--name", "bbox1", "busybox", "sleep", "600")
	h.StopDaemon()
	got = inside(`echo '{"debug": true}' >/etc/minictl/daemon.json
dpkg --no-triggers -r minictl
dpkg -s minictl | grep Status
cat /etc/minictl/daemon.json; ls -d /var/lib/minictl; ls -d /run/minictl || true
command -v minictl || echo gone`)
	for _, want := range []string{"Ended containers: ", "Removed: /run/minictl\n", "Status: deinstall ok config-files\n", `{"debug": true}`, "/var/lib/minictl\n", "gone\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("removed: no %q in:\n%s", want, got)
		}
	}
	if table := h.MustRun("nft", "list", "ruleset"); strings.Contains(table, "minictl") {
		t.Errorf("removed: there are rules left:\n%s", table)
	}
	got = inside(`mkdir -p /var/lib/minictl; touch /var/lib/minictl/x
dpkg --no-triggers -P minictl >/dev/null
ls -d /var/lib/minictl /etc/minictl 2>&1 || true
find /usr -name '*minictl*' -path '*share*' -o -name minictl -path '/usr/bin/*' -o -path '/usr/lib/*/minictl.s*'`)
	if n := strings.Count(got, "No such file"); n != 2 || len(lines(got)) != 2 {
		t.Errorf("purged, and yet:\n%s", got)
	}
}

// testInstall is make install and make uninstall, which leaves nothing but what the user made, and refuses while anything
// runs.
func testInstall(t *testing.T, repo string) {
	t.Helper()
	l := lab.New(t)
	h := l.Host("host1")
	make := func(target string) (string, int) {
		t.Helper()
		out, errOut, code := h.Run(t.Context(), "env", "MAKEFLAGS=", "MAKELEVEL=", "make", "-s", "-C", repo, target, "PREFIX=/run/local")
		return out + errOut, code
	}
	before := h.Snapshot()
	if out, code := make("install"); code != 0 {
		t.Fatalf("make install: %s", out)
	}
	for _, file := range []string{"bin/minictl", "share/man/man1/minictl-run.1", "share/man/man1/minictl-network-create.1",
		"share/bash-completion/completions/minictl", "share/zsh/site-functions/_minictl", "share/fish/vendor_completions.d/minictl.fish",
		"lib/systemd/system/minictl.socket"} {
		h.MustRun("test", "-s", "/run/local/"+file)
	}
	wantMatch(t, "unit", h.MustRun("cat", "/run/local/lib/systemd/system/minictl.service"), `(?m)^ExecStart=/run/local/bin/minictl daemon$`)
	h.Daemon()
	loadImages(t, h)
	h.MustMinictl("run", "-d", "--name", "bbox1", "busybox", "sleep", "600")
	out, code := make("uninstall")
	if code == 0 {
		t.Error("uninstalled under a running daemon")
	}
	wantMatch(t, "with a daemon", out, `another minictl daemon, pid \d+, owns /var/lib/minictl: stop it`)
	h.StopDaemon()
	out, code = make("uninstall")
	if code == 0 {
		t.Error("uninstalled under a running container")
	}
	wantMatch(t, "with a container", out, `1 container still runs \([0-9a-f]{12}\): stop them first, or end them with --force`)
	h.MustRun("sh", "-c", "/run/local/bin/minictl daemon --cleanup --force")
	if out, code := make("uninstall"); code != 0 {
		t.Errorf("make uninstall: %s", out)
	}
	if left := h.MustRun("find", "/run/local", "-type", "f"); left != "" {
		t.Errorf("uninstall left %s", left)
	}
	l.Eventually(soon, func() error {
		if diff := lab.Diff(before, h.Snapshot()); diff != "" {
			return errf("uninstall left behind:\n%s", diff)
		}
		return nil
	})
}
