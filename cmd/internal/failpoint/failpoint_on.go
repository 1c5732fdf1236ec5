//go:build failpoint

// Package failpoint lets tests make a named step fail. This build reads the step's name from [File], so that a test can
// arm one step after another without a new daemon.
package failpoint

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// File says which step is armed: "NAME" makes it fail, "NAME kill" ends the process at once, "NAME wait" keeps it there for
// as long as that is written. With "list" every step succeeds and adds its name as a line to File with ".seen" behind it.
const File = "/run/minictl-failpoint"

// Hit is a step a test may break.
func Hit(name string) error {
	b, err := os.ReadFile(File)
	if err != nil {
		return nil
	}
	armed, how, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	switch {
	case armed == "list":
		return note(name)
	case armed != name:
		return nil
	case how == "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case how == "wait":
		wait(b)
		return nil
	}
	return fmt.Errorf("failpoint %s", name)
}

// wait returns when File has something else.
func wait(armed []byte) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if now, err := os.ReadFile(File); err != nil || !bytes.Equal(now, armed) {
			return
		}
	}
}

func note(name string) error {
	f, err := os.OpenFile(File+".seen", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(name + "\n")
	return err
}
