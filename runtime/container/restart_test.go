package container_test

import (
	"testing"
	"time"

	mobycontainer "github.com/moby/moby/api/types/container"

	"github.com/minictl/minictl/runtime/container"
)

func TestNextDelay(t *testing.T) {
	var got []time.Duration
	d := time.Duration(0)
	for range 12 {
		d = container.NextDelay(d, time.Second)
		got = append(got, d)
	}
	want := []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000}
	for i := range want {
		if got[i] != want[i]*time.Millisecond {
			t.Errorf("wait %d is %v, want %v", i, got[i], want[i]*time.Millisecond)
		}
	}
	if d := container.NextDelay(time.Minute, 10*time.Second); d != 100*time.Millisecond {
		t.Errorf("after ten seconds' work %v", d)
	}
	if d := container.NextDelay(time.Minute, 10*time.Second-1); d != time.Minute {
		t.Errorf("after less %v", d)
	}
}

func TestPolicies(t *testing.T) {
	began := time.Unix(1, 0)
	never := container.Status{}
	good := container.Status{StartedAt: began}
	bad := container.Status{StartedAt: began, ExitCode: 1, RestartCount: 2}
	stopped := container.Status{StartedAt: began, ExitCode: 137, ManuallyStopped: true}
	for _, c := range []struct {
		policy string
		retry  int
		status container.Status
		again  bool // at its end
		boot   bool // at the daemon's start
	}{
		{"", 0, bad, false, false},
		{"no", 0, bad, false, false},
		{"always", 0, good, true, true},
		{"always", 0, bad, true, true},
		{"always", 0, stopped, false, true},
		{"always", 0, never, true, false},
		{"unless-stopped", 0, good, true, true},
		{"unless-stopped", 0, stopped, false, false},
		{"on-failure", 0, good, false, false},
		{"on-failure", 0, bad, true, true},
		{"on-failure", 0, stopped, false, false},
		{"on-failure", 3, bad, true, true},
		{"on-failure", 2, bad, false, false},
	} {
		p := mobycontainer.RestartPolicy{Name: mobycontainer.RestartPolicyMode(c.policy), MaximumRetryCount: c.retry}
		if got := container.StartsAgain(p, &c.status); got != c.again {
			t.Errorf("%v after %+v: again %v", p, c.status, got)
		}
		if got := container.StartsAtBoot(p, &c.status); got != c.boot {
			t.Errorf("%v after %+v: at boot %v", p, c.status, got)
		}
	}
}
