package bridge

import (
	"context"
	"errors"
	"fmt"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/nl"
)

// Present names the networks whose bridge, made by this driver, is on this host.
func (d *Driver) Present() ([]netdriver.NetworkID, error) {
	c, err := nl.Here()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	links, err := c.Links()
	if err != nil {
		return nil, err
	}
	var ids []netdriver.NetworkID
	for _, l := range links {
		if id, ok := owner(l.Alias); ok && l.Kind == "bridge" {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// Prune removes every bridge this driver made for a network that is not in keep, with its rules.
func (d *Driver) Prune(ctx context.Context, keep []netdriver.NetworkID) error {
	kept := make(map[netdriver.NetworkID]bool)
	for _, id := range keep {
		kept[id] = true
	}
	c, err := nl.Here()
	if err != nil {
		return err
	}
	defer c.Close()
	links, err := c.Links()
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range links {
		id, ok := owner(l.Alias)
		if !ok || l.Kind != "bridge" || kept[id] {
			continue
		}
		d.log.Info("left-over bridge removed", "network", string(id), "link", l.Name)
		if err := errors.Join(c.Delete(l.Index), d.firewall.RemoveBridge(ctx, l.Name)); err != nil {
			errs = append(errs, fmt.Errorf("prune network %.12s: %w", id, err))
		}
	}
	return errors.Join(errs...)
}
