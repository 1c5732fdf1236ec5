package engine

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	mobycontainer "github.com/moby/moby/api/types/container"

	"github.com/minictl/minictl/runtime/cgroup"
	"github.com/minictl/minictl/runtime/container"
)

// TestComeback follows the waits of a container that fails at once, then works for a while, then fails again.
func TestComeback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c comeback
		ready := make(chan struct{})
		close(ready)
		var waits []time.Duration
		for _, ran := range []time.Duration{0, 0, time.Second, 10 * time.Second, 0} {
			c.plan(ran)
			began := time.Now()
			if !c.arm(t.Context()).over(ready) {
				t.Fatal("called off by nobody")
			}
			waits = append(waits, time.Since(began))
		}
		want := []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond}
		if !reflect.DeepEqual(waits, want) {
			t.Errorf("waits %v, want %v", waits, want)
		}
	})
}

func TestComebackCalledOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ready := make(chan struct{})
		for name, end := range map[string]func(*comeback, context.CancelFunc){
			"by a user":       func(c *comeback, _ context.CancelFunc) { c.callOff() },
			"by another one":  func(c *comeback, _ context.CancelFunc) { c.arm(t.Context()) },
			"by the daemon":   func(_ *comeback, stop context.CancelFunc) { stop() },
			"while not ready": func(c *comeback, _ context.CancelFunc) { <-time.After(time.Hour); synctest.Wait(); c.callOff() },
		} {
			var c comeback
			ctx, stop := context.WithCancel(t.Context())
			c.plan(0)
			a := c.arm(ctx)
			over := make(chan bool)
			go func() { over <- a.over(ready) }()
			synctest.Wait()
			end(&c, stop)
			if <-over {
				t.Errorf("called off %s, and yet it happened", name)
			}
			stop()
		}
	})
}

// TestWatchHealth: probes come at the start interval until the first success, then at the interval, counted from the end
// of the one before.
func TestWatchHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &container.Check{Interval: 30 * time.Second, StartInterval: 5 * time.Second, StartPeriod: time.Minute, Retries: 2}
		began := time.Now()
		h := mobycontainer.Health{Status: mobycontainer.Starting}
		var at []time.Duration
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			watchHealth(ctx, k, func() container.Status { return container.Status{StartedAt: began, Health: &h} },
				func(context.Context) mobycontainer.HealthcheckResult {
					at = append(at, time.Since(began))
					r := mobycontainer.HealthcheckResult{Start: time.Now(), ExitCode: 1}
					<-time.After(2 * time.Second)
					if len(at) == 3 {
						r.ExitCode = 0
					}
					return r
				},
				func(r mobycontainer.HealthcheckResult) { h = k.Apply(h, r, began) })
		}()
		<-time.After(2 * time.Minute)
		cancel()
		<-done
		want := []time.Duration{5 * time.Second, 12 * time.Second, 19 * time.Second, 51 * time.Second, 83 * time.Second, 115 * time.Second}
		if !reflect.DeepEqual(at, want) {
			t.Errorf("probes at %v, want %v", at, want)
		}
		if h.Status != mobycontainer.Unhealthy || h.FailingStreak != 3 {
			t.Errorf("health %+v", h)
		}
	})
}

// TestSampled: one sample at once for one-shot, one that knows the second before it otherwise, one a second for a stream.
func TestSampled(t *testing.T) {
	for _, c := range []struct {
		name            string
		stream, oneShot bool
		running         bool
		samples         int
		took            time.Duration
		before          uint64 // the last one's preceding counter
	}{
		{"one-shot", false, true, true, 1, 0, 0},
		{"no stream", false, false, true, 1, time.Second, 1},
		{"stream", true, false, true, 4, 3 * time.Second, 3},
		{"no stream of a stopped one", false, false, false, 1, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				var taken uint64
				var got []mobycontainer.StatsResponse
				gone := errors.New("gone")
				err := sampled(t.Context(), c.stream, c.oneShot, func() (s mobycontainer.StatsResponse, ok bool) {
					taken++
					if c.running {
						s.Read = time.Now()
					}
					s.CPUStats.SystemUsage = taken
					return s, true
				}, func(s mobycontainer.StatsResponse) error {
					if got = append(got, s); len(got) == 4 {
						return gone
					}
					return nil
				})
				if err != nil && !errors.Is(err, gone) {
					t.Error(err)
				}
				if len(got) != c.samples || time.Since(began) != c.took {
					t.Fatalf("%d samples in %v", len(got), time.Since(began))
				}
				if last := got[len(got)-1]; last.PreCPUStats.SystemUsage != c.before {
					t.Errorf("the last one's before is %d, want %d", last.PreCPUStats.SystemUsage, c.before)
				}
			})
		})
	}
}

func TestParseProc(t *testing.T) {
	ns, cpus := parseProcStat("cpu  10 20 30 40 50 60 70 80 90 100\ncpu0 1 2\ncpu1 1 2\nintr 5\n")
	if ns != 360*1e7 || cpus != 2 {
		t.Errorf("%d ns, %d processors", ns, cpus)
	}
	got := parseNetDev("Inter-|   Receive\n face |bytes\n    lo: 1 1 1 1 0 0 0 0 1 1 1 1 0 0 0 0\n  eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\nbad: 1\n")
	want := map[string]mobycontainer.NetworkStats{"eth0": {RxBytes: 1, RxPackets: 2, RxErrors: 3, RxDropped: 4, TxBytes: 5, TxPackets: 6, TxErrors: 7, TxDropped: 8}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestFillStatsV2(t *testing.T) {
	var s mobycontainer.StatsResponse
	fillStats(&s, cgroup.Stats{V2: true, Memory: cgroup.Memory{Limit: 1<<64 - 1, Peak: 5}, IOBytes: []cgroup.IO{{Major: 8, Op: "Read", Value: 3}}}, 1000)
	if s.MemoryStats.Limit != 1000 || s.MemoryStats.MaxUsage != 0 || s.BlkioStats.IoServiceBytesRecursive[0].Op != "read" {
		t.Errorf("%+v", s)
	}
}

func TestParsePS(t *testing.T) {
	out := "UID PID CMD\nroot 1 init\nroot 7 sleep 5 6\nroot - thread of 7\nroot 8 sh\n"
	got, err := parsePS([]byte(out), []int{7})
	want := [][]string{{"root", "7", "sleep 5 6"}, {"root", "-", "thread of 7"}}
	if err != nil || !reflect.DeepEqual(got.Processes, want) {
		t.Errorf("got %v, %v", got.Processes, err)
	}
	for _, bad := range []string{"", "UID CMD\n", "PID\nx\n"} {
		if _, err := parsePS([]byte(bad), nil); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestParseCPUList(t *testing.T) {
	got, err := parseCPUList("0-2,7\n")
	if err != nil || !reflect.DeepEqual(got, []int{0, 1, 2, 7}) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"x", "1-", "2-1", "-1", "1,,2", "0-99999999"} {
		if _, err := parseCPUList(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestClippedBuffer(t *testing.T) {
	b := clippedBuffer{limit: 4}
	for _, s := range []string{"ab", "cd", "ef"} {
		if n, err := b.Write([]byte(s)); n != 2 || err != nil {
			t.Errorf("wrote %d, %v", n, err)
		}
	}
	if got := b.String(); got != "abcd..." {
		t.Errorf("kept %q", got)
	}
}

func FuzzParsePS(f *testing.F) {
	f.Add([]byte("UID PID CMD\nroot 1 a b\nroot -\n"))
	f.Fuzz(func(t *testing.T, out []byte) {
		top, err := parsePS(out, []int{1})
		for _, p := range top.Processes {
			if err == nil && len(p) > len(top.Titles) {
				t.Errorf("row %v under %v", p, top.Titles)
			}
		}
	})
}
