package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// sshServer starts OpenSSH's server on a host, at a port of its own, for root with one key. It gives a folder with a program
// ssh in it: OpenSSH's client with that key, and nothing of the caller's own configuration.
func sshServer(t *testing.T, l *lab.Lab, h *lab.Host, port string) (bin string) {
	t.Helper()
	server, err := filepath.Abs("../../bin/sshd")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(server, "sshd")); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no sshd: run make test-deps: %v", err)
		}
		t.Skipf("no sshd: run make test-deps: %v", err)
	}
	program, err := lab.Binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	bin = filepath.Join(dir, "bin")
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"host", "user"} {
		h.MustRun("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key))
	}
	far := filepath.Join(dir, "far") // what is in the PATH of who comes in
	if err := os.MkdirAll(far, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(program, filepath.Join(far, "minictl")); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("Port %s\nListenAddress %s\nHostKey %s/host\nAuthorizedKeysFile %s/user.pub\nStrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n"+
		"SetEnv PATH=%s:%s DOCKER_HOST=unix://%s\n", port, h.Addr(), dir, dir, far, os.Getenv("PATH"), lab.Socket)
	if session := filepath.Join(server, "sshd-session"); exists(session) { // since OpenSSH 9.8 it is of several programs
		config += "SshdSessionPath " + session + "\n"
	}
	if auth := filepath.Join(server, "sshd-auth"); exists(auth) {
		config += "SshdAuthPath " + auth + "\n"
	}
	write("sshd_config", config, 0o600)
	// It wants a user and a folder of its own, which the machine that lends the host its files need not have.
	write("passwd", "root:x:0:0:root:/root:/bin/sh\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n", 0o644)
	script := fmt.Sprintf("mkdir -p /run/sshd && mount --bind %s/passwd /etc/passwd && LD_LIBRARY_PATH=%s exec %s/sshd -D -e -f %s/sshd_config", dir, server, server, dir)
	p := h.Start("unshare", "-m", "sh", "-ec", script)
	write("ssh_config", fmt.Sprintf("IdentityFile %s/user\nIdentitiesOnly yes\nUserKnownHostsFile %s/known\nGlobalKnownHostsFile none\nStrictHostKeyChecking accept-new\n", dir, dir), 0o600)
	write("bin/ssh", "#!/bin/sh\nexec "+strings.TrimSpace(h.MustRun("sh", "-c", "command -v ssh"))+" -F "+dir+"/ssh_config \"$@\"\n", 0o755)
	l.Eventually(soon, func() error {
		c, err := h.Dial(deadline(), "tcp", h.Addr().String()+":"+port)
		if err != nil {
			return errf("sshd: %w: %s", err, p.Output())
		}
		return c.Close()
	})
	return bin
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// TestSSH reaches a daemon from a machine that has nothing but an ssh key for its host: both clients, streams included.
func TestSSH(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h, laptop := start(t, l, "host1"), l.Client("laptop")
	const port = "2222"
	bin := sshServer(t, l, h, port)
	program, err := lab.Binary()
	if err != nil {
		t.Fatal(err)
	}
	path := "PATH=" + bin + ":" + os.Getenv("PATH")
	for _, client := range []string{program, "docker"} {
		run := func(input string, args ...string) (out, errs string, code int) {
			ctx, cancel := context.WithTimeout(t.Context(), patient)
			defer cancel()
			return laptop.RunInput(ctx, input, slices.Concat([]string{"env", path, client, "--config", t.TempDir(), "-H", "ssh://root@" + h.Addr().String() + ":" + port}, args)...)
		}
		for _, c := range []struct {
			input, want string
			args        []string
			code        int
		}{
			{"", "box\n", []string{"run", "--name", "box", "--hostname", "box", "busybox", "hostname"}, 0},
			{"there and back\n", "there and back\n", []string{"run", "-i", "--rm", "busybox", "cat"}, 0},
			{"", "", []string{"run", "--rm", "busybox", "sh", "-c", "exit 7"}, 7},
			{"", "box\n", []string{"ps", "-a", "--format", "{{.Names}}"}, 0},
			{"", "box\n", []string{"rm", "box"}, 0},
		} {
			out, errs, code := run(c.input, c.args...)
			if code != c.code || out != c.want {
				t.Errorf("%s %v over ssh: %d %q %s", filepath.Base(client), c.args, code, out, errs)
			}
		}
	}
	_, errs, code := laptop.Run(t.Context(), "env", path, program, "-H", "ssh://nobody@"+h.Addr().String()+":"+port, "ps")
	wantMatch(t, "a stranger: "+itoa(code), errs, `^minictl: cannot reach the minictl daemon at ssh://nobody@.*: .*Permission denied`)
}
