package engine

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

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
	if err := knownEvents(f); err != nil {
		return nil, err
	}
	past, live := e.events.subscribe(from)
	if !to.IsZero() {
		past = slices.DeleteFunc(past, func(m events.Message) bool { return m.TimeNano > to.UnixNano() })
	}
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

// knownEvents refuses filters that would otherwise let everything through.
func knownEvents(f api.Filters) error {
	return known(f, "type", "event", "scope", "label", "container", "network", "volume", "image", "daemon", "node", "service", "secret", "config", "plugin")
}

func matchEvent(f api.Filters, m events.Message) bool {
	name := m.Actor.Attributes["name"]
	for _, t := range []events.Type{
		events.ContainerEventType, events.NetworkEventType, events.VolumeEventType, events.DaemonEventType, events.NodeEventType,
		events.ServiceEventType, events.SecretEventType, events.ConfigEventType, events.PluginEventType,
	} {
		// docker's rule: the start of an ID or a name is enough
		if len(f[string(t)]) > 0 && (m.Type != t || !matchAny(f[string(t)], func(v string) bool {
			return strings.HasPrefix(m.Actor.ID, v) || strings.HasPrefix(name, v)
		})) {
			return false
		}
	}
	return matchAny(f["type"], func(v string) bool { return v == string(m.Type) }) &&
		matchAny(f["event"], func(v string) bool { return matchAction(v, string(m.Action)) }) &&
		matchAny(f["scope"], func(v string) bool { return v == m.Scope }) &&
		matchAny(f["image"], func(v string) bool { return matchEventImage(v, m) }) &&
		matchLabels(f["label"], m.Actor.Attributes)
}

// matchAction takes the first word of actions that say more: exec_start is any command's.
func matchAction(want, action string) bool {
	kind, _, more := strings.Cut(action, ":")
	return want == action || more && want == kind
}

// matchEventImage goes by the image's ID and by its name, with and without the tag.
func matchEventImage(want string, m events.Message) bool {
	image := m.Actor.Attributes["image"]
	if m.Type == events.ImageEventType {
		image = m.Actor.Attributes["name"]
		if m.Actor.ID == want {
			return true
		}
	}
	return image != "" && (image == want || withoutTag(image) == want)
}

func withoutTag(image string) string {
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		return image[:i]
	}
	return image
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
