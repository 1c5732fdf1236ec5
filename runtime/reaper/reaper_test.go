package reaper

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

const asReaper = "MINICTL_TEST_REAPER"

// TestMain is the reaper itself when the test starts itself again: it must not reap the test's own children.
func TestMain(m *testing.M) {
	if os.Getenv(asReaper) != "" {
		os.Exit(Main(os.Args[1:]))
	}
	os.Exit(m.Run())
}

func reaper(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asReaper+"=1")
	return cmd
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--", "sh", "-c", "exit 7"}, 7, ""},
		{[]string{"true"}, 0, ""},
		{[]string{"sh", "-c", "kill -9 $$"}, 137, ""},
		{[]string{"--", "minictl-no-such-program"}, 127, "not found"},
		{[]string{"/no/such/program"}, 127, "no such file"},
		{[]string{"/etc/passwd"}, 126, "permission denied"},
		{[]string{"--"}, 126, "no program"},
	} {
		var errs bytes.Buffer
		cmd := reaper(c.args...)
		cmd.Stderr = &errs
		_ = cmd.Run() // the code tells
		if got := cmd.ProcessState.ExitCode(); got != c.code || !strings.Contains(errs.String(), c.says) {
			t.Errorf("%v: code %d, %q; want %d, %q", c.args, got, errs.String(), c.code, c.says)
		}
	}
}

func TestSignalsArePassedOn(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGHUP, syscall.SIGWINCH} {
		cmd := reaper("sh", "-c", "trap 'kill $p; exit 9' TERM USR1 HUP WINCH; sleep 60 & p=$!; echo ready; while :; do wait $p; done")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
			t.Fatalf("%q, %v", line, err)
		}
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if got := cmd.ProcessState.ExitCode(); got != 9 {
			t.Errorf("%v: code %d, want the trap's 9", s, got)
		}
	}
}
