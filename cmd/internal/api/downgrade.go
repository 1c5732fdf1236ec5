package api

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

// CreateOptions are what create is told beside its body.
type CreateOptions struct {
	Platform string // os[/arch[/variant]] that the image has to be for; empty for any
	// FlatReadOnly leaves writable what is mounted below the source of a read-only bind.
	FlatReadOnly bool
	// NetworkOrder are the body's networks as the user named them; a client that does not say names none.
	NetworkOrder []string
}

// NetworkOrderHeader has the names of a new container's networks in the order in which its interfaces shall come, escaped
// as in a URL's query, with commas between: the body is a JSON object, in which docker's client sorts them.
const NetworkOrderHeader = "Minictl-Network-Order"

// networkOrder reads the header; what is no name in it orders nothing.
func networkOrder(h http.Header) (names []string) {
	for text := range strings.SplitSeq(h.Get(NetworkOrderHeader), ",") {
		if name, err := url.QueryUnescape(text); err == nil && name != "" {
			names = append(names, name)
		}
	}
	return names
}

// downgrade gives a request the meaning that it has in the client's version of the API: fields that are newer than it say
// nothing, and what was left out had other defaults. See the API's history, docs/api/version-history.md in moby.
func (c *call) downgrade(req container.CreateRequest, o *CreateOptions) error {
	h := req.HostConfig
	if !c.since(40) && h.IpcMode == "" {
		h.IpcMode = container.IPCModeShareable
	}
	if !c.since(42) {
		h.ConsoleSize = [2]uint{}
	}
	if !c.since(43) {
		h.Annotations = nil
	}
	if !c.since(44) {
		if req.Healthcheck != nil {
			req.Healthcheck.StartInterval = 0
		}
		if ends := req.NetworkingConfig.EndpointsConfig; len(ends) > 1 {
			return invalid("Container cannot be connected to network endpoints: %s", strings.Join(slices.Sorted(maps.Keys(ends)), ", "))
		}
		o.FlatReadOnly = true
	}
	for i := range h.Mounts {
		if err := c.downgradeMount(&h.Mounts[i]); err != nil {
			return err
		}
	}
	return nil
}

func (c *call) downgradeMount(m *mount.Mount) error {
	if !c.since(42) { // such combinations were not looked at
		if m.Type != mount.TypeBind {
			m.BindOptions = nil
		}
		if m.Type != mount.TypeVolume {
			m.VolumeOptions = nil
		}
		if m.Type != mount.TypeTmpfs {
			m.TmpfsOptions = nil
		}
	}
	o := m.BindOptions
	if o == nil {
		return nil
	}
	o.NonRecursive = o.NonRecursive && c.since(40)
	o.CreateMountpoint = o.CreateMountpoint && c.since(42)
	o.ReadOnlyNonRecursive = o.ReadOnlyNonRecursive && c.since(44)
	if o.ReadOnlyForceRecursive && !c.since(44) { // who asks for it relies on it
		return invalid("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
	}
	return nil
}
