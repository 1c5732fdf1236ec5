package engine

import (
	"errors"
	"testing"

	"github.com/containerd/errdefs"
)

// TestStartErrors: whose fault it is that a container does not start.
func TestStartErrors(t *testing.T) {
	const runc = "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: "
	for text, client := range map[string]bool{
		runc + `sysctl "x" is not in a separate kernel namespace`:                                                               true,
		runc + "unable to start container process: error during container init: write /proc/sys/net/ipv4/x: invalid argument":   true,
		runc + `unable to start container process: exec: "nope": executable file not found in $PATH`:                            true,
		runc + "unable to start container process: error during container init: write /proc/sys/net/ipv4/x: input/output error": false,
		"open /var/lib/minictl/x: invalid argument":                                                                             false,
	} {
		if err := startError(errors.New(text)); errdefs.IsInvalidArgument(err) != client {
			t.Errorf("%s: %v", text, err)
		}
	}
}
