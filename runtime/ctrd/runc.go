package ctrd

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

// runc is the one program that containers need besides our own.
const runc = "runc"

// findRunc says how to get runc where there is none. Without it containerd's text would name runc as docker's clients
// expect the container's own command to be named: they would answer with 127.
func findRunc() error {
	if _, err := exec.LookPath(runc); err != nil {
		return fmt.Errorf("runc is not installed on this host: install it, for example with \"apt-get install runc\", and try again: %w", errdefs.ErrUnavailable)
	}
	return nil
}

// runcVersion asks runc once: it does not change without anybody noticing.
type runcVersion struct {
	once sync.Once
	text string
}

// RuncVersion is runc's version, such as "1.1.5+ds1"; "" where it is not installed.
func (r *Runtime) RuncVersion(ctx context.Context) string {
	r.runc.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, runc, "--version").Output()
		if err != nil {
			r.log.Debug("cannot ask runc for its version", "err", err)
			return
		}
		r.runc.text = parseRuncVersion(string(out))
	})
	return r.runc.text
}

// parseRuncVersion reads the first line of runc --version, "runc version 1.1.5+ds1".
func parseRuncVersion(out string) string {
	line, _, _ := strings.Cut(out, "\n")
	return strings.TrimSpace(strings.TrimPrefix(line, "runc version "))
}
