package sandbox

import (
	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver/nl"
)

// Unplug removes all of a sandbox's interfaces at once, and with them their other ends; nil if there is none. The
// drivers' Leave, which has to follow, then finds nothing left to wait for.
func Unplug(path string) error {
	c, err := nl.At(path)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer c.Close()
	links, err := c.Links()
	if err != nil {
		return err
	}
	var plugs []int
	for _, l := range links {
		if _, lent := lender(l.Alias); lent {
			continue // whoever made it removes it
		}
		if l.Kind == "veth" || l.Kind == "macvlan" {
			plugs = append(plugs, l.Index)
		}
	}
	return c.DeleteAll(plugs...)
}
