package bridge

import (
	"context"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/nl"
	"github.com/minictl/minictl/netdriver/sandbox"
)

// Missing counts the links that a network with these endpoints ought to have on this host and that are not there, or not
// up. Join makes them again.
func (d *Driver) Missing(_ context.Context, n netdriver.Network, endpoints []netdriver.EndpointID) (int, error) {
	o, err := parse(n)
	if err != nil {
		return 0, err
	}
	defer d.lock(o.name)()
	c, err := nl.Here()
	if err != nil {
		return 0, err
	}
	defer c.Close()
	br, err := c.Link(o.name)
	if errdefs.IsNotFound(err) || err == nil && !br.Up {
		return 1, nil
	}
	if err != nil {
		return 0, err
	}
	attached, err := sandbox.Attached(c, br.Index)
	if err != nil {
		return 0, err
	}
	missing := 0
	for _, id := range endpoints {
		if !slices.ContainsFunc(attached, func(p sandbox.Plugged) bool { return p.ID == id }) {
			missing++
		}
	}
	return missing, nil
}
