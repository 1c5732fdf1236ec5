package feed

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"

	"github.com/minictl/minictl/cmd/internal/filters"
)

func TestMatch(t *testing.T) {
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
		filters filters.Set
		of      events.Message
		want    bool
	}{
		{nil, start, true},
		{filters.Set{"type": {}}, start, true}, // a key without values asks for nothing
		{filters.Set{"type": {"container": true}}, start, true},
		{filters.Set{"type": {"container": true}}, nets, false},
		{filters.Set{"type": {"image": true, "network": true}}, nets, true},
		{filters.Set{"event": {"start": true}}, start, true},
		{filters.Set{"event": {"sta": true}}, start, false},
		{filters.Set{"event": {"start": true}}, execd, false},
		{filters.Set{"event": {"exec_start": true}}, execd, true},
		{filters.Set{"event": {"exec_start: sh -c x": true}}, execd, true},
		{filters.Set{"event": {"exec_start: sh": true}}, execd, false},
		{filters.Set{"event": {"health_status": true}}, sick, true},
		{filters.Set{"event": {"health_status: healthy": true}}, sick, false},
		{filters.Set{"container": {"web-1": true}}, start, true},
		{filters.Set{"container": {"web": true}}, start, true},
		{filters.Set{"container": {"abcdef012345": true}}, start, true},
		{filters.Set{"container": {"cdef": true}}, start, false},
		{filters.Set{"container": {"web": true}}, nets, false}, // a network of that name is none
		{filters.Set{"network": {"web": true}}, nets, true},
		{filters.Set{"volume": {"web": true}}, nets, false},
		{filters.Set{"service": {"web": true}}, start, false},
		{filters.Set{"image": {"busybox": true}}, tag, true},
		{filters.Set{"image": {"busybox:1": true}}, tag, true},
		{filters.Set{"image": {"busybox:2": true}}, tag, false},
		{filters.Set{"image": {"sha256:aa": true}}, tag, true},
		{filters.Set{"image": {"reg.example:5000/a/b": true}}, start, true},
		{filters.Set{"image": {"reg.example": true}}, start, false},
		{filters.Set{"label": {"tier": true}}, start, true},
		{filters.Set{"label": {"tier=front": true, "tier": true}}, start, true},
		{filters.Set{"label": {"tier=back": true}}, start, false},
		{filters.Set{"scope": {"swarm": true}}, start, false},
	}
	for _, tt := range tests {
		if got := match(tt.filters, tt.of); got != tt.want {
			t.Errorf("%v of %s %s: %v", tt.filters, tt.of.Type, tt.of.Action, got)
		}
	}
}

// TestPastEvents are those between since and until, both included; neither asks for none.
func TestPastEvents(t *testing.T) {
	b := New()
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

// TestListenersThatSleep: who does not read is cut off, and others go on.
func TestListenersThatSleep(t *testing.T) {
	f := New()
	asleep, err := f.Listen("", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	awake, err := f.Listen("", "", filters.Set{"event": {"last": true}})
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan events.Message)
	ended := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		defer close(ended)
		awake(ctx, got)
	}()
	for range patience + 1 {
		f.Publish(events.Message{Action: "last"})
		<-got
	}
	all := make(chan events.Message, 2*patience)
	asleep(ctx, all) // returns, though ctx has not ended
	if len(all) != patience {
		t.Errorf("handed %d events to one that slept, want %d", len(all), patience)
	}
	cancel()
	<-ended
	if len(f.listeners) != 0 {
		t.Errorf("%d listeners are left", len(f.listeners))
	}
}

// TestFiltersOfEvents: one that nobody answers is refused, not taken for one that lets all through.
func TestFiltersOfEvents(t *testing.T) {
	if _, err := New().Listen("", "", filters.Set{"colour": {"red": true}}); err == nil {
		t.Error("accepted")
	}
}
