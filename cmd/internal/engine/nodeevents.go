package engine

import (
	"maps"
	"slices"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/swarm"

	"github.com/minictl/minictl/cluster"
)

// scopeSwarm is docker's word for what all hosts see.
const scopeSwarm = "swarm"

// nodeLoop says what happens to the cluster's nodes. A daemon that starts says nothing about those it finds.
func (e *Engine) nodeLoop() {
	changes, err := cluster.WatchNodes(e.ctx, e.cl.Store())
	if err != nil {
		return // the cluster is closed
	}
	var before map[string]swarm.Node
	for {
		select {
		case _, open := <-changes:
			if !open {
				changes = nil
			}
		case <-e.nodeWake:
		case <-e.ctx.Done():
			return
		}
		now, err := e.nodesByID()
		if err != nil {
			continue
		}
		if before != nil {
			for _, m := range nodeEvents(before, now) {
				e.events.Publish(m)
			}
		}
		before = now
	}
}

// nodesByID are the members; of no cluster there are none, so that leaving one is no end of its nodes.
func (e *Engine) nodesByID() (map[string]swarm.Node, error) {
	out := map[string]swarm.Node{}
	if !e.cl.Clustered() {
		return out, nil
	}
	specs, err := cluster.NodeSpecs(e.ctx, e.cl.Store())
	if err != nil {
		return nil, err
	}
	for _, m := range e.cl.Members() {
		out[string(m.ID)] = e.swarmNode(m, specs[m.ID], swarm.TLSInfo{})
	}
	return out, nil
}

// nodeEvents is what has happened between two looks, in the order of the nodes' IDs.
func nodeEvents(before, now map[string]swarm.Node) []events.Message {
	var out []events.Message
	if len(now) == 0 { // this host has left
		return nil
	}
	for _, id := range slices.Sorted(maps.Keys(before)) {
		if n, stays := now[id]; !stays {
			out = append(out, nodeEvent(before[id], events.ActionRemove, nil))
		} else if changes := nodeChanges(before[id], n); changes != nil {
			out = append(out, nodeEvent(n, events.ActionUpdate, changes))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(now)) {
		if _, known := before[id]; !known {
			out = append(out, nodeEvent(now[id], events.ActionCreate, nil))
		}
	}
	return out
}

// nodeChanges are an update's attributes, docker's; nil when nothing has changed. New labels are an update without any.
func nodeChanges(old, now swarm.Node) map[string]string {
	changes := map[string]string{}
	for what, v := range map[string][2]string{
		"state": {string(old.Status.State), string(now.Status.State)},
		"role":  {string(old.Spec.Role), string(now.Spec.Role)},
	} {
		if v[0] != v[1] {
			changes[what+".old"], changes[what+".new"] = v[0], v[1]
		}
	}
	if len(changes) == 0 && old.Version == now.Version && old.Description.Hostname == now.Description.Hostname {
		return nil
	}
	return changes
}

func nodeEvent(n swarm.Node, action events.Action, changes map[string]string) events.Message {
	attrs := map[string]string{"name": n.Description.Hostname}
	maps.Copy(attrs, changes)
	return events.Message{Type: events.NodeEventType, Action: action, Scope: scopeSwarm, Actor: events.Actor{ID: n.ID, Attributes: attrs}}
}
