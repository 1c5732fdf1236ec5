package overlay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/nl"
	"github.com/minictl/minictl/netdriver/sandbox"
)

// Repair compares every network that has endpoints here with the kernel's own dump, and makes up for what somebody else
// has changed. It tells how much that was by kind: "link", "fdb" and "neighbour". All networks are tried.
func (d *Driver) Repair(ctx context.Context) (drift map[string]int, err error) {
	d.mu.Lock()
	ids := slices.Sorted(maps.Keys(d.networks))
	d.mu.Unlock()
	drift = map[string]int{}
	var errs []error
	for _, id := range ids {
		if err := d.repair(ctx, id, drift); err != nil {
			errs = append(errs, fmt.Errorf("repair network %.12s: %w", id, err))
		}
	}
	return drift, errors.Join(errs...)
}

func (d *Driver) repair(ctx context.Context, id netdriver.NetworkID, drift map[string]int) error {
	if !d.known(id) {
		return nil // removed meanwhile
	}
	own := d.acquire(id)
	defer own.mu.Unlock()
	if own.wish == nil || len(own.endpoints) == 0 {
		return nil
	}
	missing, err := d.missing(own)
	if err != nil {
		return err
	}
	if missing > 0 {
		drift["link"] += missing
		return d.ensure(ctx, own) // the rows went with the links
	}
	c, err := nl.At(d.file(id))
	if err != nil {
		return err
	}
	defer c.Close()
	todo, err := d.amendRows(ctx, c, own)
	drift["fdb"] += len(todo.setFDB) + len(todo.deleteFDB)
	drift["neighbour"] += len(todo.setNeighbours) + len(todo.deleteNeighbours)
	return err
}

// missing counts the links of a network that are not there, or not up.
func (d *Driver) missing(own *network) (n int, err error) {
	if !sandbox.Exists(d.file(own.wish.ID)) {
		return 1, nil
	}
	w, err := d.want(own)
	if err != nil {
		return 0, err
	}
	c, err := nl.At(d.file(own.wish.ID))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	links, err := c.Links()
	if err != nil {
		return 0, err
	}
	up := map[string]nl.Link{}
	for _, l := range links {
		if l.Up {
			up[l.Name] = l
		}
	}
	br, ok := up[bridgeName]
	if !ok {
		return 1, nil
	}
	if _, ok := up[tunnelName]; !ok && w.tunnel.Local.IsValid() && !w.keep {
		n++
	}
	attached, err := sandbox.Attached(c, br.Index)
	if err != nil {
		return 0, err
	}
	for id, p := range own.endpoints {
		there := slices.ContainsFunc(attached, func(a sandbox.Plugged) bool { return a.ID == id })
		if !there && sandbox.Exists(p.sandbox.Path) {
			n++
		}
	}
	return n, nil
}
