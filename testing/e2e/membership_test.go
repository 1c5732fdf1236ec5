package e2e

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// phrase runs a command of minictl that takes a passphrase.
func phrase(t *testing.T, h *lab.Host, text string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	bin, err := lab.Binary()
	if err != nil {
		t.Fatal(err)
	}
	return h.RunInput(t.Context(), text+"\n", append([]string{bin}, args...)...)
}

// TestBackup is a host that loses what it has of the cluster, and with it everything that the cluster has decided: it is
// restored, its own containers start again, and the other host, whose containers ran all the time, joins
// again when it is told to.
func TestBackup(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h1, h2 := pair(t, l)
	h1.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
	h1.MustMinictl("run", "-d", "--name", "bbox1", "--network", "ov_net1", "busybox", "sleep", "600")
	h2.MustMinictl("run", "-d", "--name", "bbox2", "--network", "ov_net1", "busybox", "sleep", "600")
	file := filepath.Join(h1.Dir(), "cluster.age")
	if _, errOut, code := phrase(t, h1, "correct horse", "cluster", "backup", file); code != 0 {
		t.Fatalf("backup: %s", errOut)
	}
	h2.MustMinictl("run", "-d", "--name", "later2", "--network", "ov_net1", "busybox", "sleep", "600")
	h1.MustMinictl("network", "create", "-d", "overlay", "ov_net2")
	wantMatch(t, "backup of a fresh host", refusedBackup(t, h1, file), `minictl cluster leave`)

	h1.Halt()
	if err := os.RemoveAll(filepath.Join(h1.Dir(), "data", "cluster")); err != nil {
		t.Fatal(err)
	}
	h1.Boot()
	h1.RestartDaemon()
	if _, errOut, code := phrase(t, h1, "wrong horse", "cluster", "restore", file); code != 1 || !strings.Contains(errOut, "the passphrase is wrong") {
		t.Errorf("wrong passphrase: code %d, %s", code, errOut)
	}
	out, errOut, code := phrase(t, h1, "correct horse", "cluster", "restore", file)
	if code != 0 {
		t.Fatalf("restore: %s", errOut)
	}
	wantMatch(t, "restore", out, `(?s)This host is node host1 .*Missing: host2\. .*minictl cluster rejoin`)
	h1.MustMinictl("start", "bbox1")
	// What host2 may have given out since is not known here yet.
	wantMatch(t, "an address from the middle", addressOf(h1, "bbox1"), inTheMiddle)
	says(t, l, h2, "minictl cluster rejoin")
	h2.MustMinictl("cluster", "rejoin", "-f")
	oneCluster(t, l, h1, h2)
	reaches(t, l, h1, "bbox1", "bbox2", "later2")
	reaches(t, l, h2, "later2", "bbox1", "bbox2")
	noTwins(t, l, 3, h1, h2)
	whole(t, l, 8, 3, h1, h2)
	l.Eventually(soon, func() error { // made after the backup, and known to h2 alone
		if out := h1.MustMinictl("network", "ls", "-q", "--filter", "name=ov_net2"); strings.TrimSpace(out) == "" {
			return errf("ov_net2 is lost")
		}
		return nil
	})
}

// refusedBackup tries to restore a member.
func refusedBackup(t *testing.T, h *lab.Host, file string) string {
	t.Helper()
	_, errOut, code := phrase(t, h, "correct horse", "cluster", "restore", file)
	if code != 1 {
		t.Errorf("restore of a member: code %d", code)
	}
	return errOut
}

// TestRevoke cuts off a host that is up and will not leave, replaces what it knew, and lets it in again as a new node.
func TestRevoke(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h1, h2 := pair(t, l)
	h3 := start(t, l, "host3")
	token := joinArgs(t, h1)
	h3.MustMinictl(append(token, "192.168.66.11")...)
	h1.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
	for h, name := range map[*lab.Host]string{h1: "bbox1", h2: "bbox2", h3: "bbox3"} {
		h.MustMinictl("run", "-d", "--name", name, "--network", "ov_net1", "busybox", "sleep", "600")
	}
	reaches(t, l, h3, "bbox3", "bbox1", "bbox2")
	target := addressOf(h1, "bbox1")
	h2.MustMinictl("node", "rm", "--force", "host3")
	h1.MustMinictl("cluster", "ca", "rotate")
	oneCluster(t, l, h1, h2)
	reaches(t, l, h1, "bbox1", "bbox2")
	reaches(t, l, h2, "bbox2", "bbox1")
	if out, _, code := h3.Minictl("exec", "bbox3", "ping", "-c", "1", "-W", "1", target); code == 0 {
		t.Errorf("a packet of the removed host got in: %s", out)
	}
	says(t, l, h3, "not a member of this cluster, or no longer: run `minictl cluster leave --force`")
	h3.MustMinictl("cluster", "leave", "--force")
	h3.MustMinictl("rm", "-f", "bbox3")
	fails(t, h3, 1, `minictl cluster token`, append(token, "192.168.66.11")...)
	h3.MustMinictl(append(joinArgs(t, h2), "192.168.66.12")...)
	oneCluster(t, l, h1, h2, h3)
	h3.MustMinictl("run", "-d", "--name", "again3", "--network", "ov_net1", "busybox", "sleep", "600")
	reaches(t, l, h3, "again3", "bbox1", "bbox2")
}

// TestAddressChanges gives hosts other addresses, with their daemons running and not: names, packets and decisions follow.
// Then a host's disk is copied to another machine: the copy is refused until it is made a node of its own.
func TestAddressChanges(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h1, h2 := pair(t, l)
	h1.MustMinictl("network", "create", "-d", "overlay", "ov_net1")
	for i, h := range []*lab.Host{h1, h2} {
		h.MustMinictl("run", "-d", "--name", "bbox"+itoa(i+1), "--network", "ov_net1", "busybox", "sleep", "3600")
	}
	// The interfaces are noted a moment after the addresses are taken.
	noted := func(h *lab.Host) {
		l.Eventually(soon, func() error {
			b, err := os.ReadFile(filepath.Join(h.Dir(), "data", "cluster", "cluster.json"))
			if err != nil || !strings.Contains(string(b), `"eth0"`) {
				return errf("%s has not noted its interface: %v", h.Name(), err)
			}
			return nil
		})
	}
	follows := func(h *lab.Host, addr string) {
		t.Helper()
		oneCluster(t, l, h1, h2)
		for _, x := range []*lab.Host{h1, h2} {
			l.Eventually(soon, func() error {
				if out := x.MustMinictl("cluster", "status"); !strings.Contains(out, addr+":7946") {
					return errf("%s: %s", x.Name(), out)
				}
				return nil
			})
		}
		reaches(t, l, h1, "bbox1", "bbox2")
		reaches(t, l, h2, "bbox2", "bbox1")
		h.MustMinictl("network", "create", "-d", "overlay", "n-"+addr)
	}
	noted(h1)
	noted(h2)
	h2.Renumber(netip.MustParseAddr("192.168.66.52"))
	follows(h2, "192.168.66.52")
	h1.Renumber(netip.MustParseAddr("192.168.66.51"))
	follows(h1, "192.168.66.51")
	noted(h2)
	h2.StopDaemon()
	h2.Renumber(netip.MustParseAddr("192.168.66.12"))
	h2.RestartDaemon()
	follows(h2, "192.168.66.12")

	copied := l.Host("host3")
	noted(h2)
	if err := os.CopyFS(filepath.Join(copied.Dir(), "data", "cluster"), os.DirFS(filepath.Join(h2.Dir(), "data", "cluster"))); err != nil {
		t.Fatal(err)
	}
	copied.Daemon()
	says(t, l, copied, "node host2 (192.168.66.12) is up, and this host has its key")
	oneCluster(t, l, h1, h2)
	reaches(t, l, h1, "bbox1", "bbox2")
	copied.MustMinictl("cluster", "leave", "--force")
	copied.MustMinictl(append(joinArgs(t, h1), "192.168.66.51")...)
	oneCluster(t, l, h1, h2, copied)
}
