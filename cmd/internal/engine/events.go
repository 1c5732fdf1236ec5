package engine

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"

	"github.com/minictl/minictl/cmd/internal/api"
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

func (b *broker) subscribe(since time.Time) ([]events.Message, chan events.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var past []events.Message
	if !since.IsZero() {
		for _, m := range b.past {
			if m.TimeNano >= since.UnixNano() {
				past = append(past, m)
			}
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
	from, err := parseTime(since)
	if err != nil {
		return nil, err
	}
	to, err := parseTime(until)
	if err != nil {
		return nil, err
	}
	past, live := e.events.subscribe(from)
	out := make(chan events.Message)
	e.spawn(func() {
		defer close(out)
		defer e.events.unsubscribe(live)
		var end <-chan time.Time
		if !to.IsZero() {
			end = time.After(time.Until(to))
		}
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

func matchEvent(f api.Filters, m events.Message) bool {
	name := m.Actor.Attributes["name"]
	isA := func(key string, t events.Type) bool {
		return len(f[key]) == 0 || (m.Type == t && (f[key][m.Actor.ID] || f[key][name]))
	}
	return (len(f["type"]) == 0 || f["type"][string(m.Type)]) &&
		(len(f["event"]) == 0 || f["event"][string(m.Action)]) &&
		(len(f["scope"]) == 0 || f["scope"][m.Scope]) &&
		isA("container", events.ContainerEventType) && isA("network", events.NetworkEventType) &&
		isA("volume", events.VolumeEventType) &&
		(len(f["image"]) == 0 || f["image"][m.Actor.ID] || f["image"][name] || f["image"][m.Actor.Attributes["image"]]) &&
		matchLabels(f["label"], m.Actor.Attributes)
}

// event says what happened to a container.
func (e *Engine) event(b *box, action events.Action, more ...string) {
	spec := b.specCopy()
	attrs := map[string]string{}
	for k, v := range spec.Config.Labels {
		attrs[k] = v
	}
	attrs["name"], attrs["image"] = spec.Name, spec.Image
	for i := 0; i+1 < len(more); i += 2 {
		attrs[more[i]] = more[i+1]
	}
	e.events.publish(events.Message{Type: events.ContainerEventType, Action: action, Actor: events.Actor{ID: spec.ID, Attributes: attrs}})
}

func (e *Engine) networkEvent(n *Network, action events.Action, more ...string) {
	attrs := map[string]string{"name": n.Name, "type": n.Driver}
	for i := 0; i+1 < len(more); i += 2 {
		attrs[more[i]] = more[i+1]
	}
	e.events.publish(events.Message{Type: events.NetworkEventType, Action: action, Actor: events.Actor{ID: n.ID, Attributes: attrs}})
}

func (e *Engine) imageEvent(ref, id string, action events.Action) {
	e.events.publish(events.Message{Type: events.ImageEventType, Action: action, Actor: events.Actor{ID: id, Attributes: map[string]string{"name": ref}}})
}

func exitAttr(code int) []string { return []string{"exitCode", strconv.Itoa(code)} }

// pruned says what a prune freed, in bytes.
func (e *Engine) pruned(kind events.Type, reclaimed uint64) {
	e.events.publish(events.Message{Type: kind, Action: events.ActionPrune, Actor: events.Actor{Attributes: map[string]string{
		"reclaimed": strconv.FormatUint(reclaimed, 10),
	}}})
}
