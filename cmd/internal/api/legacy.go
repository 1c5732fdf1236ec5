package api

import (
	"net/netip"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
)

// The types that we use are newer than the version that we announce. Fields that API 1.51 still has and the types no
// longer do are added here, since scripts read them: docker inspect -f '{{.NetworkSettings.IPAddress}}'.

// legacyInspect is a container as API 1.51 shows it. The outer field hides the inner one.
type legacyInspect struct {
	container.InspectResponse
	GraphDriver     graphDriver
	NetworkSettings *legacyNetworkSettings
}

// graphDriver is what the layers are kept with, as docker shows it of containerd's.
type graphDriver struct {
	Data map[string]string
	Name string
}

// legacyNetworkSettings repeats the default bridge's endpoint at the top, as docker did from before networks had names.
type legacyNetworkSettings struct {
	Bridge                 string
	HairpinMode            bool
	LinkLocalIPv6Address   string
	LinkLocalIPv6PrefixLen int
	SecondaryIPAddresses   []string
	SecondaryIPv6Addresses []string
	*container.NetworkSettings
	EndpointID          string
	Gateway             netip.Addr
	GlobalIPv6Address   netip.Addr
	GlobalIPv6PrefixLen int
	IPAddress           netip.Addr
	IPPrefixLen         int
	IPv6Gateway         netip.Addr
	MacAddress          network.HardwareAddr
}

// withLegacyNetwork fills the old fields from the network called bridge, the only one that they ever meant.
func withLegacyNetwork(info container.InspectResponse) legacyInspect {
	out := legacyInspect{InspectResponse: info, GraphDriver: graphDriver{Name: info.Driver}}
	if info.NetworkSettings == nil {
		return out
	}
	set := &legacyNetworkSettings{NetworkSettings: info.NetworkSettings}
	if e := info.NetworkSettings.Networks[network.NetworkBridge]; e != nil {
		set.EndpointID, set.MacAddress = e.EndpointID, e.MacAddress
		set.Gateway, set.IPAddress, set.IPPrefixLen = e.Gateway, e.IPAddress, e.IPPrefixLen
		set.IPv6Gateway, set.GlobalIPv6Address, set.GlobalIPv6PrefixLen = e.IPv6Gateway, e.GlobalIPv6Address, e.GlobalIPv6PrefixLen
	}
	out.NetworkSettings = set
	return out
}

// legacyEvent is an event as API 1.51 writes it: containers and images have their old names as well.
type legacyEvent struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	events.Message
}

// withLegacyNames fills what docker fills: images have no from.
func withLegacyNames(m events.Message) legacyEvent {
	e := legacyEvent{Message: m}
	switch m.Type {
	case events.ContainerEventType:
		e.Status, e.ID, e.From = string(m.Action), m.Actor.ID, m.Actor.Attributes["image"]
	case events.ImageEventType:
		e.Status, e.ID = string(m.Action), m.Actor.ID
	}
	return e
}

// legacyNetwork is a network in a list: docker's lists have the key, always empty.
type legacyNetwork struct {
	network.Summary
	Containers map[string]network.EndpointResource
}

// legacyImage is an image as API 1.51 shows it: some fields are there although they are empty.
type legacyImage struct {
	image.InspectResponse
	Parent        string
	Comment       string
	DockerVersion string
	Author        string
	GraphDriver   graphDriver
	VirtualSize   int64 `json:",omitempty"` // until 1.43
}

func withLegacyFields(c *call, info image.InspectResponse) legacyImage {
	out := legacyImage{InspectResponse: info, Comment: info.Comment, Author: info.Author, GraphDriver: graphDriver{Name: "overlayfs"}}
	if !c.since(44) {
		out.VirtualSize = info.Size
	}
	return out
}

// legacySummary is an image in a list. Clients of before API 1.44 reckon with the second size, the same as the first.
type legacySummary struct {
	image.Summary
	VirtualSize int64 `json:",omitempty"` // until 1.43
}

// summaries gives images as the client's version of the API lists them.
func summaries(c *call, list []image.Summary) []legacySummary {
	out := make([]legacySummary, 0, len(list))
	for _, i := range list {
		if !c.since(47) || !c.flag("manifests") {
			i.Manifests = nil
		}
		i.RepoTags, i.RepoDigests = orEmpty(i.RepoTags), orEmpty(i.RepoDigests)
		one := legacySummary{Summary: i}
		if !c.since(44) {
			one.VirtualSize = i.Size
		}
		out = append(out, one)
	}
	return out
}
