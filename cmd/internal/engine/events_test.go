package engine

import (
	"fmt"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"

	"github.com/minictl/minictl/cluster/store/memstore"
)

func TestEventTimes(t *testing.T) {
	e := newHost(t, memstore.New(), "host")
	e.imageEvent("sha256:1", "busybox", nil, events.ActionPull)
	ch, err := e.Events(t.Context(), "0", "9999999999", nil)
	if err != nil {
		t.Fatal(err)
	}
	if m := <-ch; m.Action != events.ActionPull {
		t.Errorf("since 0: %+v", m)
	}
	now := fmt.Sprint(time.Now().Unix())
	if m, ok := <-must(e.Events(t.Context(), "", now, nil)); !ok || m.Action != events.ActionPull {
		t.Errorf("until this second: %+v", m)
	}
	for range must(e.Events(t.Context(), "", "1", nil)) {
		t.Error("an event from before all of them")
	}
	if _, err := e.Events(t.Context(), "2", "1", nil); err == nil || err.Error() != "`since` time (2) cannot be after `until` time (1)" {
		t.Errorf("since after until: %v", err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
