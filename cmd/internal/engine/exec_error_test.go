package engine

import (
	"errors"
	"testing"

	"github.com/containerd/errdefs"
)

func TestExecError(t *testing.T) {
	const want = `OCI runtime exec failed: exec failed: exec: "x": executable file not found in $PATH`
	for _, text := range []string{want, `exec failed: exec: "x": executable file not found in $PATH`} {
		if err := execError(errors.New(text)); err.Error() != want || !errdefs.IsInvalidArgument(err) {
			t.Errorf("%v", err)
		}
	}
	if err := execError(errors.New("no memory")); err.Error() != "OCI runtime exec failed: no memory" || errdefs.IsInvalidArgument(err) {
		t.Errorf("%v", err)
	}
}
