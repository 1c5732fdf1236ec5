package engine

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"

	"github.com/minictl/minictl/cluster/store/memstore"
	"github.com/minictl/minictl/cmd/internal/api"
)

func TestMatchEvent(t *testing.T) {
	about := func(kind events.Type, action events.Action, id string, attrs map[string]string) events.Message {
		return events.Message{Type: kind, Action: action, Scope: "local", Actor: events.Actor{ID: id, Attributes: attrs}}
	}
	web := map[string]string{"name": "web-1", "image": "reg.example:5000/a/b:1", "tier": "front"}
	start := about("container", "start", "abcdef0123456789", web)
	execd := about("container", "exec_start: sh -c x", "abcdef0123456789", web)
	sick := about("container", "health_status: unhealthy", "abcdef0123456789", web)
	nets := about("network", "connect", "0123", map[string]string{"name": "web", "container": "abcdef0123456789"})
	tag := about("image", "tag", "sha256:aa", map[string]string{"name": "busybox:1"})
	tests := []struct {
		filters api.Filters
		of      events.Message
		want    bool
	}{
		{nil, start, true},
		{api.Filters{"type": {}}, start, true}, // a key without values asks for nothing
		{api.Filters{"type": {"container": true}}, start, true},
		{api.Filters{"type": {"container": true}}, nets, false},
		{api.Filters{"type": {"image": true, "network": true}}, nets, true},
		{api.Filters{"event": {"start": true}}, start, true},
		{api.Filters{"event": {"sta": true}}, start, false},
		{api.Filters{"event": {"start": true}}, execd, false},
		{api.Filters{"event": {"exec_start": true}}, execd, true},
		{api.Filters{"event": {"exec_start: sh -c x": true}}, execd, true},
		{api.Filters{"event": {"exec_start: sh": true}}, execd, false},
		{api.Filters{"event": {"health_status": true}}, sick, true},
		{api.Filters{"event": {"health_status: healthy": true}}, sick, false},
		{api.Filters{"container": {"web-1": true}}, start, true},
		{api.Filters{"container": {"web": true}}, start, true},
		{api.Filters{"container": {"abcdef012345": true}}, start, true},
		{api.Filters{"container": {"cdef": true}}, start, false},
		{api.Filters{"container": {"web": true}}, nets, false}, // a network of that name is none
		{api.Filters{"network": {"web": true}}, nets, true},
		{api.Filters{"volume": {"web": true}}, nets, false},
		{api.Filters{"service": {"web": true}}, start, false},
		{api.Filters{"image": {"busybox": true}}, tag, true},
		{api.Filters{"image": {"busybox:1": true}}, tag, true},
		{api.Filters{"image": {"busybox:2": true}}, tag, false},
		{api.Filters{"image": {"sha256:aa": true}}, tag, true},
		{api.Filters{"image": {"reg.example:5000/a/b": true}}, start, true},
		{api.Filters{"image": {"reg.example": true}}, start, false},
		{api.Filters{"label": {"tier": true}}, start, true},
		{api.Filters{"label": {"tier=front": true, "tier": true}}, start, true},
		{api.Filters{"label": {"tier=back": true}}, start, false},
		{api.Filters{"scope": {"swarm": true}}, start, false},
	}
	for _, tt := range tests {
		if got := matchEvent(tt.filters, tt.of); got != tt.want {
			t.Errorf("%v of %s %s: %v", tt.filters, tt.of.Type, tt.of.Action, got)
		}
	}
}

// TestPastEvents are those between since and until, both included; neither asks for none.
func TestPastEvents(t *testing.T) {
	b := newBroker()
	for i := range 4 {
		b.past = append(b.past, events.Message{Action: events.Action(fmt.Sprint(i)), TimeNano: time.Unix(int64(i), 0).UnixNano()})
	}
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	for _, tt := range []struct {
		since, until time.Time
		want         []string
	}{
		{time.Time{}, time.Time{}, nil},
		{at(0), time.Time{}, []string{"0", "1", "2", "3"}},
		{at(1), at(2), []string{"1", "2"}},
		{time.Time{}, at(1), []string{"0", "1"}},
		{at(9), time.Time{}, nil},
	} {
		past, l := b.subscribe(tt.since, tt.until)
		b.unsubscribe(l)
		var got []string
		for _, m := range past {
			got = append(got, string(m.Action))
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%v to %v: %v, want %v", tt.since, tt.until, got, tt.want)
		}
	}
}

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
