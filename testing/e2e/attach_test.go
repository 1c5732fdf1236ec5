package e2e

import (
	"context"
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// TestAttach is attach: with pipes, where the end of the input ends the container, and at a terminal, which the detach keys
// leave without ending anything.
func TestAttach(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	bin, err := lab.Binary()
	if err != nil {
		t.Fatal(err)
	}
	for i, client := range [][]string{{bin}, {"docker", "-H", "unix://" + lab.Socket}} {
		run := func(input string, args ...string) (string, string, int) {
			return h.RunInput(context.Background(), input, append(client, args...)...)
		}
		talk, shell := "talk"+itoa(i), "shell"+itoa(i)
		if _, errOut, code := run("", "create", "-i", "--name", talk, "busybox", "sh", "-c", "cat; echo over >&2; exit 5"); code != 0 {
			t.Fatal(errOut)
		}
		h.MustMinictl("start", talk)
		if out, errOut, code := run("one\ntwo\n", "attach", talk); out != "one\ntwo\n" || errOut != "over\n" || code != 5 {
			t.Errorf("%v: attach gave %q, %q, code %d", client, out, errOut, code)
		}
		if _, errOut, code := run("", "attach", talk); code != 1 || !strings.Contains(errOut, "cannot attach to a stopped container, start it first") {
			t.Errorf("%v: attach to what has ended: %q, code %d", client, errOut, code)
		}

		h.MustMinictl("run", "-dit", "--name", shell, "busybox", "sh")
		tty := h.TTY(append(client, "attach", "--detach-keys", "ctrl-a,d", shell)...)
		size := func(rows, cols string) { // the shell learns it a little later
			tty.Type("until stty size | grep -q '" + rows + " " + cols + "'; do usleep 20000; done; echo is$((6*7))x" + rows + "\r")
			tty.Expect("is42x"+rows, soon)
		}
		size("24", "80")
		tty.Resize(40, 100)
		size("40", "100")
		tty.Type("\x01d")
		if code, err := tty.Wait(soon); err != nil || code != 0 && code != 1 { // docker calls the way out an error
			t.Errorf("%v: detached with code %d, %v", client, code, err)
		}
		if got := h.MustMinictl("inspect", "-f", "{{.State.Status}}", shell); got != "running\n" {
			t.Errorf("%v: after detaching it is %s", client, got)
		}
	}
}
