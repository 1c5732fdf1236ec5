package engine

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/events"

	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/runtime/container"
)

// Events gives past events since a time, then live ones until ctx ends or the until time has come.
func (e *Engine) Events(ctx context.Context, since, until string, f api.Filters) (<-chan events.Message, error) {
	send, err := e.events.Listen(since, until, f)
	if err != nil {
		return nil, err
	}
	out := make(chan events.Message)
	e.spawn(func() {
		defer close(out)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(e.ctx, cancel)()
		send(ctx, out)
	})
	return out, nil
}

// event says what happened to a container.
func (e *Engine) event(b *box, action events.Action, more ...string) {
	spec := b.specCopy()
	e.events.Publish(containerEvent(&spec, action, more...))
}

func containerEvent(spec *container.Spec, action events.Action, more ...string) events.Message {
	attrs := map[string]string{}
	maps.Copy(attrs, spec.Config.Labels)
	attrs["name"], attrs["image"] = spec.Name, spec.Image
	addPairs(attrs, more)
	return events.Message{Type: events.ContainerEventType, Action: action, Actor: events.Actor{ID: spec.ID, Attributes: attrs}}
}

// addPairs adds key after key with the value behind it.
func addPairs(attrs map[string]string, pairs []string) {
	for p := range slices.Chunk(pairs, 2) {
		attrs[p[0]] = p[1]
	}
}

func (e *Engine) networkEvent(n *Network, action events.Action, more ...string) {
	attrs := map[string]string{"name": n.Name, "type": n.Driver}
	addPairs(attrs, more)
	e.events.Publish(events.Message{Type: events.NetworkEventType, Action: action, Actor: events.Actor{ID: n.ID, Attributes: attrs}})
}

// imageEvent says what happened to an image, called by a name or, when it has none any more, by its ID.
func (e *Engine) imageEvent(id, name string, labels map[string]string, action events.Action) {
	attrs := map[string]string{}
	maps.Copy(attrs, labels)
	attrs["name"] = name
	e.events.Publish(events.Message{Type: events.ImageEventType, Action: action, Actor: events.Actor{ID: id, Attributes: attrs}})
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
	e.events.Publish(events.Message{Type: kind, Action: events.ActionPrune, Actor: events.Actor{Attributes: map[string]string{
		"reclaimed": strconv.FormatUint(reclaimed, 10),
	}}})
}
