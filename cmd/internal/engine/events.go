package engine

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"

	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/runtime/container"
)

// keptEvents is how many past events `events --since` can show: docker's number.
const keptEvents = 256

// broker hands events to whoever listens, in order, and keeps the last ones.
type broker struct {
	mu        sync.Mutex
	past      []events.Message
	listeners map[chan events.Message]struct{}
}

func newBroker() *broker { return &broker{listeners: map[chan events.Message]struct{}{}} }

func (b *broker) publish(m events.Message) {
	now := time.Now()
	m.Time, m.TimeNano = now.Unix(), now.UnixNano()
	if m.Scope == "" {
		m.Scope = "local"
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.past) == keptEvents {
		b.past = b.past[1:]
	}
	b.past = append(b.past, m)
	for l := range b.listeners {
		select {
		case l <- m:
		default: // a listener that sleeps through a thousand events is cut off rather than waited for
			delete(b.listeners, l)
			close(l)
		}
	}
}

// subscribe gives the kept events from since to until, and a channel of those to come. Zero times are no bounds; without
// either there is no question about the past.
func (b *broker) subscribe(since, until time.Time) ([]events.Message, chan events.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var past []events.Message
	for _, m := range b.past {
		at := time.Unix(0, m.TimeNano)
		if (!since.IsZero() || !until.IsZero()) && !at.Before(since) && (until.IsZero() || !at.After(until)) {
			past = append(past, m)
		}
	}
	l := make(chan events.Message, 1024)
	b.listeners[l] = struct{}{}
	return past, l
}

func (b *broker) unsubscribe(l chan events.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.listeners, l)
}

// Events gives past events since a time, then live ones until ctx ends or the until time has come.
func (e *Engine) Events(ctx context.Context, since, until string, f api.Filters) (<-chan events.Message, error) {
	from, to, err := eventTimes(since, until)
	if err != nil {
		return nil, err
	}
	if err := knownEvents(f); err != nil {
		return nil, err
	}
	past, live := e.events.subscribe(from, wholeSecond(to))
	out := make(chan events.Message)
	e.spawn(func() {
		defer close(out)
		defer e.events.unsubscribe(live)
		send := func(m events.Message) bool {
			if !matchEvent(f, m) {
				return true
			}
			select {
			case out <- m:
				return true
			case <-ctx.Done():
			case <-e.ctx.Done():
			}
			return false
		}
		for _, m := range past {
			if !send(m) {
				return
			}
		}
		var end <-chan time.Time
		if !to.IsZero() {
			end = time.After(time.Until(to))
		}
		for {
			select {
			case m, ok := <-live:
				if !ok || !send(m) {
					return
				}
			case <-end:
				return
			case <-ctx.Done():
				return
			case <-e.ctx.Done():
				return
			}
		}
	})
	return out, nil
}

// eventTimes reads since and until. Since 0 is the epoch: all that is kept.
func eventTimes(since, until string) (from, to time.Time, err error) {
	if from, err = parseTime(since); err != nil {
		return from, to, err
	}
	if since == "0" {
		from = time.Unix(0, 0)
	}
	if to, err = parseTime(until); err != nil {
		return from, to, err
	}
	if !to.IsZero() && to.Before(from) {
		return from, to, invalid("`since` time (%s) cannot be after `until` time (%s)", since, until)
	}
	return from, to, nil
}

// wholeSecond takes a time without a fraction for its whole second: the client that turns "until now" into one must not
// miss what happened last.
func wholeSecond(t time.Time) time.Time {
	if t.IsZero() || t.Nanosecond() != 0 {
		return t
	}
	return t.Add(time.Second - 1)
}

// knownEvents refuses filters that would otherwise let everything through.
func knownEvents(f api.Filters) error {
	return known(f, "type", "event", "scope", "label", "container", "network", "volume", "image", "daemon", "node", "service", "secret", "config", "plugin")
}

// openActions are followed by a colon and what it was about: "exec_start: sh". Asked for without it, all of them fit.
var openActions = []string{string(events.ActionHealthStatus), string(events.ActionExecCreate), string(events.ActionExecStart)}

// matchEvent tells whether an event passes the filters. Names and IDs fit by their beginning, as docker's do.
func matchEvent(f api.Filters, m events.Message) bool {
	action, _, open := strings.Cut(string(m.Action), ":")
	open = open && slices.Contains(openActions, action)
	return matchAny(f["type"], func(v string) bool { return v == string(m.Type) }) &&
		matchAny(f["event"], func(v string) bool { return v == string(m.Action) || open && v == action }) &&
		matchAny(f["scope"], func(v string) bool { return v == m.Scope }) &&
		matchActor(f, m) && matchImage(f["image"], m) && matchLabels(f["label"], m.Actor.Attributes)
}

// matchActor tells whether an event is about one of the objects asked for by their own kind's filter.
func matchActor(f api.Filters, m events.Message) bool {
	for _, kind := range []events.Type{
		events.ContainerEventType, events.NetworkEventType, events.VolumeEventType, events.NodeEventType,
		events.DaemonEventType, events.PluginEventType, events.ServiceEventType, events.SecretEventType, events.ConfigEventType,
	} {
		if !matchAny(f[string(kind)], func(v string) bool {
			return m.Type == kind && (strings.HasPrefix(m.Actor.ID, v) || strings.HasPrefix(m.Actor.Attributes["name"], v))
		}) {
			return false
		}
	}
	return true
}

// matchImage tells whether an event is about an image or a container of one. The tag may be left out.
func matchImage(want map[string]bool, m events.Message) bool {
	name := m.Actor.Attributes["image"]
	if m.Type == events.ImageEventType {
		name = m.Actor.Attributes["name"]
	}
	return matchAny(want, func(v string) bool {
		return v == m.Actor.ID || v == name || v == withoutTag(m.Actor.ID) || v == withoutTag(name)
	})
}

// withoutTag gives a reference's name, or the text itself if it is none.
func withoutTag(s string) string {
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return s
	}
	return reference.FamiliarName(named)
}

// event says what happened to a container.
func (e *Engine) event(b *box, action events.Action, more ...string) {
	spec := b.specCopy()
	e.events.publish(containerEvent(&spec, action, more...))
}

func containerEvent(spec *container.Spec, action events.Action, more ...string) events.Message {
	attrs := map[string]string{}
	for k, v := range spec.Config.Labels {
		attrs[k] = v
	}
	attrs["name"], attrs["image"] = spec.Name, spec.Image
	for i := 0; i+1 < len(more); i += 2 {
		attrs[more[i]] = more[i+1]
	}
	return events.Message{Type: events.ContainerEventType, Action: action, Actor: events.Actor{ID: spec.ID, Attributes: attrs}}
}

func (e *Engine) networkEvent(n *Network, action events.Action, more ...string) {
	attrs := map[string]string{"name": n.Name, "type": n.Driver}
	for i := 0; i+1 < len(more); i += 2 {
		attrs[more[i]] = more[i+1]
	}
	e.events.publish(events.Message{Type: events.NetworkEventType, Action: action, Actor: events.Actor{ID: n.ID, Attributes: attrs}})
}

// imageEvent says what happened to an image, called by a name or, when it has none any more, by its ID.
func (e *Engine) imageEvent(id, name string, labels map[string]string, action events.Action) {
	attrs := map[string]string{}
	maps.Copy(attrs, labels)
	attrs["name"] = name
	e.events.publish(events.Message{Type: events.ImageEventType, Action: action, Actor: events.Actor{ID: id, Attributes: attrs}})
}

// imageEventOf is imageEvent for an image that is here, found by any of its names.
func (e *Engine) imageEventOf(ctx context.Context, ref, name string, action events.Action) {
	img, err := e.rt.Image(ctx, ref)
	if err != nil {
		return // somebody removed it meanwhile, and that is an event of its own
	}
	e.imageEvent(img.ID, name, img.Config.Config.Labels, action)
}

func exitAttr(code int) []string { return []string{"exitCode", strconv.Itoa(code)} }

// ranFor is how long a container ran, in whole seconds.
func ranFor(start, end time.Time) string { return strconv.Itoa(int(max(end.Sub(start), 0).Seconds())) }

// pruned says what a prune freed, in bytes.
func (e *Engine) pruned(kind events.Type, reclaimed uint64) {
	e.events.publish(events.Message{Type: kind, Action: events.ActionPrune, Actor: events.Actor{Attributes: map[string]string{
		"reclaimed": strconv.FormatUint(reclaimed, 10),
	}}})
}
