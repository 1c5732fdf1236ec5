//go:build failpoint

// Package failpoint lets tests make a named step fail. This build reads the step's name from the file that
// MINICTL_FAILPOINT names, so that a test can arm one step after another without a new daemon.
package failpoint

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// Hit fails when the file says "NAME", and ends the process at once when it says "NAME kill".
func Hit(name string) error {
	b, err := os.ReadFile(os.Getenv("MINICTL_FAILPOINT"))
	if err != nil {
		return nil
	}
	armed, how, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	if armed != name {
		return nil
	}
	if how == "kill" {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	return fmt.Errorf("failpoint %s", name)
}
