package e2e

import (
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// sh runs a line of shell on a host.
func sh(h *lab.Host, line string) string { return h.MustRun("sh", "-ec", line) }

// TestCopy moves files in and out of running and stopped containers, with both command lines.
func TestCopy(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	before := h.Snapshot()
	sh(h, `mkdir -p /run/src/sub /run/vol; echo one >/run/src/one; echo two >/run/src/sub/two; ln -s one /run/src/link; chmod 4755 /run/src/sub/two; echo secret >/run/secret`)
	h.MustMinictl("run", "-d", "--name", "live", "-v", "/run/vol:/vol", "--user", "1000:2000", "busybox", "sleep", "600")
	h.MustMinictl("create", "--name", "idle", "-v", "/run/vol:/vol", "--user", "1000:2000", "busybox", "sleep", "600")
	for _, c := range recentClients(t) {
		for _, box := range []string{"live", "idle"} {
			t.Run(c.name+" "+box, func(t *testing.T) { copies(t, h, c, box) })
		}
	}
	t.Run("streams", func(t *testing.T) {
		for _, prog := range []string{"minictl", "docker"} {
			bin := "docker -H unix://" + lab.Socket
			if prog == "minictl" {
				b, err := lab.Binary()
				if err != nil {
					t.Fatal(err)
				}
				bin = b
			}
			sh(h, `tar -C /run/src -c . | `+bin+` cp - live:/tmp/stream 2>/dev/null && exit 1; `+bin+` cp /run/src live:/tmp/stream; tar -C /run/src -c . | `+bin+` cp - live:/tmp/stream`)
			wantMatch(t, prog, sh(h, bin+` cp live:/tmp/stream - | tar -t | sort`), `(?s)stream/\nstream/link\nstream/one\nstream/sub/\nstream/sub/two\n$`)
			h.MustMinictl("exec", "-u", "0", "live", "rm", "-r", "/tmp/stream")
		}
	})
	t.Run("links stay inside", func(t *testing.T) {
		h.MustMinictl("exec", "-u", "0", "live", "sh", "-c", "ln -s /run/secret /tmp/out; ln -s ../../../../../run/secret /tmp/up; ln -s /proc/1/root /tmp/magic")
		for _, c := range recentClients(t) {
			for _, p := range []string{"/tmp/out", "/tmp/up", "/run/secret", "/../../run/secret", "/proc/self/root/run/secret", "/tmp/magic/run/secret"} {
				if out, _, code := c.try(h, "cp", "-L", "live:"+p, "-"); code == 0 && strings.Contains(out, "secret\n") {
					t.Errorf("%s: %s leads to the host's file", c.name, p)
				}
			}
			c.must(h, "cp", "/run/src/one", "live:/tmp/one")
			_, _, _ = c.try(h, "cp", "/run/src/one", "live:/tmp/out")
			if got := sh(h, "cat /run/secret"); got != "secret\n" {
				t.Errorf("%s wrote to the host: %s", c.name, got)
			}
		}
	})
	t.Run("read-only", func(t *testing.T) {
		h.MustMinictl("run", "-d", "--name", "ro", "--read-only", "-v", "/run/vol:/vol", "busybox", "sleep", "600")
		h.MustMinictl("create", "--name", "ro2", "--read-only", "-v", "/run/vol:/vol:ro", "busybox", "sleep", "600")
		for _, box := range []string{"ro", "ro2"} {
			fails(t, h, 1, `marked read-only`, "cp", "/run/src/one", box+":/etc/one")
		}
		h.MustMinictl("cp", "/run/src/one", "ro:/vol/one")
		fails(t, h, 1, `marked read-only`, "cp", "/run/src/one", "ro2:/vol/two")
	})
	t.Run("bad input", func(t *testing.T) {
		for _, c := range []struct{ pattern, from, to string }{
			{`Could not find the file /nope in container live`, "live:/nope", "/run"},
			{`No such container: nope`, "nope:/x", "/run"},
			{`no such file or directory`, "/run/nope", "live:/tmp"},
			{`Could not find the file /nope in container live`, "/run/src/one", "live:/nope/one"},
			{`no such directory`, "/run/src/one", "live:/nope/"},
			{`cannot copy directory`, "/run/src", "live:/etc/passwd"},
			{`directory "/run/nope" does not exist`, "live:/etc/passwd", "/run/nope/x"},
			{`copying between containers is not supported`, "live:/x", "idle:/x"},
			{`must specify at least one container source`, "/x", "/y"},
			{`not a directory`, "live:/etc/passwd/", "/run"},
		} {
			fails(t, h, 1, c.pattern, "cp", c.from, c.to)
		}
	})
	h.KillDaemon()
	h.RestartDaemon()
	wantMatch(t, "after a restart", h.MustMinictl("cp", "live:/tmp/one", "-"), "one")
	h.MustMinictl("rm", "-f", "live", "idle", "ro", "ro2")
	sh(h, "rm -rf /run/src /run/vol /run/secret /run/got")
	if diff := lab.Diff(before, h.Snapshot()); diff != "" {
		t.Errorf("left behind:\n%s", diff)
	}
}

// copies tries every form of cp on one container.
func copies(t *testing.T, h *lab.Host, c cli, box string) {
	same := func(what, a, b string) {
		t.Helper()
		if out, errs, code := h.Run(t.Context(), "diff", "-r", "--no-dereference", a, b); code != 0 {
			t.Errorf("%s: %s%s", what, out, errs)
		}
	}
	sh(h, "rm -rf /run/got; mkdir -p /run/got/there")
	c.must(h, "cp", "/run/src", box+":/tmp/new")   // not there yet: under this name
	c.must(h, "cp", "/run/src", box+":/tmp/new")   // a folder: below it
	c.must(h, "cp", "/run/src/.", box+":/tmp/new") // the content alone
	c.must(h, "cp", box+":/tmp/new/src", "/run/got/fresh")
	c.must(h, "cp", box+":/tmp/new/src", "/run/got/there")
	c.must(h, "cp", box+":/tmp/new/src/.", "/run/got/there/content")
	same("fresh", "/run/src", "/run/got/fresh")
	same("there", "/run/src", "/run/got/there/src")
	same("content", "/run/src", "/run/got/there/content")
	if got := sh(h, "stat -c %a:%s /run/got/fresh/sub/two"); got != "4755:4\n" {
		t.Errorf("mode and size: %s", got)
	}
	// One file: into a folder, under a name, over a file, through a link.
	c.must(h, "cp", "/run/src/sub/two", box+":/tmp/new/one")
	c.must(h, "cp", box+":/tmp/new/one", "/run/got/there")
	c.must(h, "cp", box+":/tmp/new/link", "/run/got/link")
	c.must(h, "cp", "-L", box+":/tmp/new/link", "/run/got/followed")
	if got := sh(h, "cat /run/got/there/one; readlink /run/got/link; cat /run/got/followed"); got != "two\none\ntwo\n" {
		t.Errorf("files: %q", got)
	}
	c.must(h, "cp", "-L", "/run/src/link", box+":/tmp/new/plain")
	c.must(h, "cp", box+":/tmp/new/plain", "/run/got/plain")
	same("a link followed", "/run/src/one", "/run/got/plain")
	// What is mounted is seen, and written to.
	c.must(h, "cp", "/run/src/one", box+":/vol/"+c.name+box)
	if got := sh(h, "cat /run/vol/"+c.name+box); got != "one\n" {
		t.Errorf("the volume holds %q", got)
	}
	c.must(h, "cp", box+":/vol/"+c.name+box, "/run/got/fromvol")
	same("from the volume", "/run/src/one", "/run/got/fromvol")
	// With -a all belongs to the container's user.
	c.must(h, "cp", "-a", "/run/src/one", box+":/vol/mine")
	if got := sh(h, "stat -c %u:%g /run/vol/mine /run/vol/"+c.name+box); got != "1000:2000\n0:0\n" {
		t.Errorf("owners: %s", got)
	}
	if _, errs, code := c.try(h, "cp", box+":/nope", "/run/got"); code != 1 || !strings.Contains(errs, "Could not find the file /nope in container "+box) {
		t.Errorf("missing: %d %s", code, errs)
	}
	if box == "live" {
		h.MustMinictl("exec", "-u", "0", box, "rm", "-r", "/tmp/new")
		return
	}
	h.MustMinictl("rm", box) // its files cannot be removed from inside
	h.MustMinictl("create", "--name", box, "-v", "/run/vol:/vol", "--user", "1000:2000", "busybox", "sleep", "600")
}

// TestDiffExportCommit looks at what a container changed, takes it out whole, and makes an image of it.
func TestDiffExportCommit(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	before := h.Snapshot()
	for _, c := range recentClients(t) {
		t.Run(c.name, func(t *testing.T) {
			box, image := c.name+"box", "site:"+c.name
			c.must(h, "run", "-d", "--name", box, "-e", "A=1", "--label", "l=1", "-v", "/run:/data/deep", "busybox", "sh", "-c", "sleep 600")
			if got := c.must(h, "diff", box); got != "C /data\n" && got != "A /data\nA /data/deep\n" {
				t.Errorf("nothing was changed yet: %s", got)
			}
			c.must(h, "exec", box, "sh", "-c", "echo x >/root/new; mkdir -p /srv/a; echo y >/srv/a/b; rm /etc/group; echo z >>/etc/passwd; rm -r /var; mkdir /var")
			want := "C /etc\nD /etc/group\nC /etc/passwd\nC /root\nA /root/new\nA /srv\nA /srv/a\nA /srv/a/b\n"
			got := c.must(h, "diff", box)
			for line := range strings.Lines(want) {
				if !strings.Contains(got, line) {
					t.Errorf("diff has no %q:\n%s", line, got)
				}
			}
			if strings.Contains(got, "/etc/hosts") || strings.Contains(got, "/proc") || strings.Contains(got, "/dev") {
				t.Errorf("diff shows what runc makes:\n%s", got)
			}
			c.must(h, "export", "-o", "/run/"+box+".tar", box)
			list := sh(h, "tar -tf /run/"+box+".tar")
			wantMatch(t, "export", list, `(?m)^srv/a/b$`)
			wantMatch(t, "export", list, `(?m)^bin/busybox$`)
			if strings.Contains(list, "\netc/group\n") || strings.Contains(list, "data/deep/minictl") {
				t.Errorf("export holds what is deleted, or mounted:\n%s", list)
			}
			id := strings.TrimSpace(c.must(h, "commit", "-m", "with a page", "-a", "Joe", "-c", "ENV B=2", "-c", `CMD ["cat","/root/new"]`, box, image))
			if out := c.must(h, "run", "--rm", image); out != "x\n" {
				t.Errorf("the new image says %q", out)
			}
			if out := c.must(h, "run", "--rm", image, "sh", "-c", "cat /srv/a/b; echo $A$B; ls /etc/group /data/deep 2>&1; true"); !strings.HasPrefix(out, "y\n12\n") || !strings.Contains(out, "/etc/group: No such file") {
				t.Errorf("the new image's files: %q", out)
			}
			wantMatch(t, "inspect", c.must(h, "image", "inspect", "-f", "{{.Id}} {{.Author}} {{.Config.Labels.l}}", image), id+` Joe 1`)
			wantMatch(t, "history", c.must(h, "history", image), `(?m)^`+id[7:19]+` .*sh -c sleep 600.*with a page`)
			// It was paused, and goes on.
			wantMatch(t, "state", h.MustMinictl("inspect", "-f", "{{.State.Status}}", box), "running")
			c.must(h, "exec", box, "true")
			// Stopped, as well, and after a restart of the daemon.
			c.must(h, "stop", "-t", "0", box)
			h.StopDaemon()
			h.RestartDaemon()
			if again := c.must(h, "diff", box); again != got {
				t.Errorf("diff of the stopped container:\n%s\nwas\n%s", again, got)
			}
			c.must(h, "commit", "--pause=false", box)
			c.must(h, "export", "-o", "/run/"+box+"2.tar", box)
			if again := sh(h, "tar -tf /run/"+box+"2.tar"); again != list {
				t.Error("the export of the stopped container differs")
			}
			if out := c.must(h, "run", "--rm", image); out != "x\n" {
				t.Errorf("the new image, later: %q", out)
			}
			// What was exported can be imported.
			c.must(h, "import", "/run/"+box+".tar", "flat:"+c.name)
			if out := c.must(h, "run", "--rm", "flat:"+c.name, "cat", "/srv/a/b"); out != "y\n" {
				t.Errorf("imported: %q", out)
			}
			c.must(h, "rm", box)
			sh(h, "rm /run/"+box+"*.tar")
		})
	}
	fails(t, h, 1, `No such container: nope`, "commit", "nope")
	fails(t, h, 1, `No such container: nope`, "diff", "nope")
	fails(t, h, 1, `No such container: nope`, "export", "-o", "/run/x", "nope")
	if out, _, code := h.Run(t.Context(), "ls", "/run/x"); code == 0 {
		t.Errorf("a file of a failed export: %s", out)
	}
	if diff := lab.Diff(before, h.Snapshot()); diff != "" {
		t.Errorf("left behind:\n%s", diff)
	}
}
