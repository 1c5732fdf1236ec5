package container

import (
	"math"
	"testing"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
)

func TestUlimits(t *testing.T) {
	for _, c := range []struct {
		limit *mobycontainer.Ulimit
		want  string
	}{
		{&mobycontainer.Ulimit{Name: "nofile", Soft: 1, Hard: 2}, ""},
		{&mobycontainer.Ulimit{Name: "nofile", Soft: 2, Hard: 2}, ""},
		{&mobycontainer.Ulimit{Name: "core", Soft: 2, Hard: -1}, ""},
		{&mobycontainer.Ulimit{Name: "core", Soft: -1, Hard: -1}, ""},
		{nil, "invalid ulimit: null: invalid argument"},
		{&mobycontainer.Ulimit{Name: "zz"}, "invalid ulimit name zz: invalid argument"},
		{&mobycontainer.Ulimit{Name: "nofile", Soft: 3, Hard: 2}, "ulimit soft limit must be less than or equal to hard limit: 3 > 2: invalid argument"},
		{&mobycontainer.Ulimit{Name: "nofile", Soft: -1, Hard: 2}, "ulimit soft limit must be less than or equal to hard limit: -1 > 2: invalid argument"},
	} {
		err := ValidateResources(&mobycontainer.Resources{Ulimits: []*mobycontainer.Ulimit{c.limit}})
		if c.want == "" && err != nil || c.want != "" && (err == nil || err.Error() != c.want || !errdefs.IsInvalidArgument(err)) {
			t.Errorf("%+v: %v, want %q", c.limit, err, c.want)
		}
	}
}

// TestHugeMemory: twice as much as there can be is not less than nothing.
func TestHugeMemory(t *testing.T) {
	r := mobycontainer.Resources{Memory: math.MaxInt64}
	FillResources(&r)
	if r.MemorySwap < r.Memory {
		t.Errorf("swap %d", r.MemorySwap)
	}
}
