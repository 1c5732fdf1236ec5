package engine

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/firewall"
)

// driftingOverlay counts how often it is compared with the kernel, and finds what it is told to.
type driftingOverlay struct {
	fakeOverlay

	mu    sync.Mutex
	looks int
	find  map[string]int
}

// Repair implements repairer.
func (o *driftingOverlay) Repair(context.Context) (map[string]int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.looks++
	found := o.find
	o.find = nil
	return found, nil
}

func (o *driftingOverlay) took() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := o.looks
	o.looks = 0
	return n
}

// TestRepairTick: the kernel is compared every 30 seconds when nothing is heard of it, and at once when something is.
func TestRepairTick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		news := make(chan struct{})
		o := &driftingOverlay{}
		// This firewall has written nothing, so there is nothing of it to compare.
		e := &Engine{ctx: ctx, log: slog.New(slog.DiscardHandler), cfg: Config{
			Overlay: o, Firewall: firewall.New(slog.New(slog.DiscardHandler)),
			WatchRules: func(ctx context.Context, changed func()) error {
				for {
					select {
					case <-news:
						changed()
					case <-ctx.Done():
						return ctx.Err()
					}
				}
			},
			WatchLinks: func(ctx context.Context, _ func()) error { <-ctx.Done(); return ctx.Err() },
		}}
		e.spawn(e.repairLoop)
		pass := func(d time.Duration) {
			time.Sleep(d) //nolint:forbidigo // of the bubble
			synctest.Wait()
		}
		pass(repairEvery - time.Second)
		o.took() // once or twice: both watches begin with a look
		pass(2 * time.Second)
		if n := o.took(); n != 1 {
			t.Errorf("%d looks at the first tick", n)
		}
		pass(10 * repairEvery)
		if n := o.took(); n != 10 {
			t.Errorf("%d looks in ten ticks", n)
		}
		news <- struct{}{}
		pass(0)
		if n := o.took(); n != 1 {
			t.Errorf("%d looks at news", n)
		}
		o.find = map[string]int{"fdb": 2, "link": 1}
		pass(repairEvery)
		if words, want := e.drift.words(), "link 1, fdb 2; last at "+time.Now().Add(-time.Second).Format("2006-01-02T15:04"); !strings.Contains(words, want) {
			t.Errorf("%q, want %q in it", words, want)
		}
		stop()
		e.wg.Wait()
		if err := e.cfg.Firewall.Close(); err != nil {
			t.Error(err)
		}
	})
}

var _ netdriver.Driver = (*driftingOverlay)(nil)
