package e2e

import (
	"context"
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// terminal starts a client on a terminal of its own.
func (c cli) terminal(h *lab.Host, args ...string) *lab.TTY {
	if c.name == "minictl" {
		return h.MinictlTTY(args...)
	}
	return h.TTY(append([]string{"docker", "-H", "unix://" + lab.Socket}, args...)...)
}

// feed runs a client whose standard input ends after some text.
func (c cli) feed(t *testing.T, h *lab.Host, input string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	client := []string{"docker", "-H", "unix://" + lab.Socket}
	if c.name == "minictl" {
		bin, err := lab.Binary()
		if err != nil {
			t.Fatal(err)
		}
		client = []string{bin}
	}
	return h.RunInput(context.Background(), input, append(client, args...)...)
}

// ends wants the client on a terminal to end with a code.
func ends(t *testing.T, what string, tty *lab.TTY, code int) {
	t.Helper()
	if got, err := tty.Wait(patient); err != nil || got != code {
		t.Errorf("%s: code %d, %v, want %d:\n%s", what, got, err, code, tty.Output())
	}
}

// TestTerminals: a person at a terminal sees the process's terminal, leaves it by the detach keys, comes back, and gets its
// exit code.
func TestTerminals(t *testing.T) {
	t.Parallel()
	for _, c := range clients() {
		t.Run(c.name, func(t *testing.T) {
			l := lab.New(t)
			h := start(t, l, "host1")
			running := func() {
				t.Helper()
				if got := c.field(h, "box", "{{.State.Status}}"); got != "running" {
					t.Errorf("the container is %s", got)
				}
			}
			// Docker's own attach and exec take the keys for an error of theirs.
			detached := func(what string, tty *lab.TTY) {
				t.Helper()
				if got, err := tty.Wait(patient); err != nil || got != 0 && c.name == "minictl" {
					t.Errorf("%s after the detach keys: code %d, %v:\n%s", what, got, err, tty.Output())
				}
			}
			run := c.terminal(h, "run", "-it", "--name", "box", "busybox", "sh")
			run.Expect("# ", patient)
			run.Type("stty size\r")
			run.Expect("24 80", patient)
			run.Resize(30, 100)
			run.Type("until [ \"$(stty size)\" = '30 100' ]; do usleep 10000; done; echo re''sized\r")
			run.Expect("resized", patient)
			run.Type("\x10\x11") // ctrl-p ctrl-q
			ends(t, "run after the detach keys", run, 0)
			running()

			attach := c.terminal(h, "attach", "--detach-keys", "ctrl-a,d", "box")
			attach.Type("echo a''gain\r")
			attach.Expect("again", patient)
			attach.Type("\x10\x11\x15echo st''ill here\r") // the usual keys are the process's now; ctrl-u clears its line
			attach.Expect("still here", patient)
			attach.Type("\x01\x15echo n''ot yet\r") // the first of the keys alone is the process's too
			attach.Expect("not yet", patient)
			attach.Type("\x01d")
			detached("attach", attach)
			running()

			exec := c.terminal(h, "exec", "-it", "box", "sh")
			exec.Expect("# ", patient)
			exec.Type("stty size; sleep 4321\r")
			exec.Expect("24 80", patient)
			l.Eventually(patient, func() error {
				if out := c.must(h, "top", "box", "-o", "pid,args"); !strings.Contains(out, "sleep 4321") {
					return errf("%s", out)
				}
				return nil
			})
			exec.Type("\x10\x11")
			detached("exec", exec)
			wantMatch(t, "what was left running", c.must(h, "top", "box", "-o", "pid,args"), `sleep 4321`)

			exec = c.terminal(h, "exec", "-it", "box", "sh")
			exec.Expect("# ", patient)
			exec.Type("exit 6\r")
			ends(t, "exec's exit", exec, 6)

			attach = c.terminal(h, "attach", "box")
			attach.Type("exit 5\r")
			ends(t, "attach when the process exits", attach, 5)

			again := c.terminal(h, "start", "-ai", "--detach-keys", "q", "box")
			again.Type("echo o''nce more\r")
			again.Expect("once more", patient)
			again.Type("q")
			ends(t, "start -ai after its detach key", again, 0)
			running()
			c.must(h, "rm", "-f", "box")
		})
	}
}

// TestHalfClose: the end of a client's input is the end of the process's, and nothing it still has to say is lost.
func TestHalfClose(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	h.MustMinictl("run", "-d", "--name", "box", "busybox", "sleep", "600")
	big := strings.Repeat("0123456789abcde\n", 1<<13)
	for _, c := range clients() {
		for _, args := range [][]string{{"run", "-i", "--rm", "busybox"}, {"exec", "-i", "box"}} {
			out, errOut, code := c.feed(t, h, "x\n", append(args, "sh", "-c", "cat; echo then; echo err >&2; exit 4")...)
			if out != "x\nthen\n" || errOut != "err\n" || code != 4 {
				t.Errorf("%s %s: %q, %q, code %d", c.name, args[0], out, errOut, code)
			}
			out, errOut, code = c.feed(t, h, big, append(args, "cat")...)
			if out != big || code != 0 {
				t.Errorf("%s %s: %d of %d bytes, code %d: %s", c.name, args[0], len(out), len(big), code, errOut)
			}
		}
		c.must(h, "create", "-i", "--name", "fed", "busybox", "sh", "-c", "cat; exit 3")
		if out, errOut, code := c.feed(t, h, "y", "start", "-ai", "fed"); out != "y" || code != 3 {
			t.Errorf("%s start -ai: %q, code %d: %s", c.name, out, code, errOut)
		}
		c.must(h, "rm", "fed")
	}
}

// TestManyExecs: a hundred at once, each with its own output and its own exit code, known when its stream ends.
func TestManyExecs(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	h.MustMinictl("run", "-d", "--name", "box", "busybox", "sleep", "600")
	const n = 100
	failed := make(chan error, n)
	for i := range n {
		c := clients()[i%2]
		go func() {
			word := itoa(i)
			out, errOut, code := c.feed(t, h, word+"\n", "exec", "-i", "box", "sh", "-c", "read x; echo $x; exit "+word)
			var err error
			if out != word+"\n" || code != i {
				err = errf("%s %d: %q, code %d: %s", c.name, i, out, code, errOut)
			}
			failed <- err
		}()
	}
	for range n {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	if out := lines(h.MustMinictl("top", "box")); len(out) != 2 {
		t.Errorf("processes left: %v", out)
	}
	if got := clients()[0].field(h, "box", "{{len .ExecIDs}}"); got != "0" {
		t.Errorf("inspect shows %s execs that have ended", got)
	}
}
