package feed

import (
	"slices"
	"strings"

	"github.com/moby/moby/api/types/events"

	"github.com/minictl/minictl/cmd/internal/filters"
	"github.com/minictl/minictl/runtime/image"
)

// known refuses filters that would otherwise let everything through.
func known(f filters.Set) error {
	return f.Only("type", "event", "scope", "label", "container", "network", "volume", "image", "daemon", "node", "service", "secret", "config", "plugin")
}

// match tells whether an event passes the filters. Names and IDs fit by their beginning, as docker's do.
func match(f filters.Set, m events.Message) bool {
	// Some actions are followed by a colon and what it was about, "exec_start: sh". Asked for without it, all of them fit.
	action, _, open := strings.Cut(string(m.Action), ":")
	open = open && slices.Contains([]string{string(events.ActionHealthStatus), string(events.ActionExecCreate), string(events.ActionExecStart)}, action)
	return f.Is("type", string(m.Type)) && f.Is("scope", m.Scope) && f.Labels("label", m.Actor.Attributes) &&
		f.Any("event", func(v string) bool { return v == string(m.Action) || open && v == action }) &&
		matchActor(f, m) && matchImage(f, m)
}

// matchActor tells whether an event is about one of the objects asked for by their own kind's filter.
func matchActor(f filters.Set, m events.Message) bool {
	for _, kind := range []events.Type{
		events.ContainerEventType, events.NetworkEventType, events.VolumeEventType, events.NodeEventType,
		events.DaemonEventType, events.PluginEventType, events.ServiceEventType, events.SecretEventType, events.ConfigEventType,
	} {
		if len(f[string(kind)]) > 0 && (m.Type != kind || !f.Begins(string(kind), m.Actor.ID, m.Actor.Attributes["name"])) {
			return false
		}
	}
	return true
}

// matchImage tells whether an event is about an image or a container of one. The tag may be left out.
func matchImage(f filters.Set, m events.Message) bool {
	name := m.Actor.Attributes["image"]
	if m.Type == events.ImageEventType {
		name = m.Actor.Attributes["name"]
	}
	return f.Any("image", func(v string) bool {
		return v == m.Actor.ID || v == name || v == image.Repository(m.Actor.ID) || v == image.Repository(name)
	})
}
