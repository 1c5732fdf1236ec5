package engine

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/swarm"

	"github.com/minictl/minictl/cluster"
	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/cmd/internal/api"
)

// NodeList is docker node ls.
func (e *Engine) NodeList(ctx context.Context, f api.Filters) ([]swarm.Node, error) {
	if err := checkNodeFilters(f); err != nil {
		return nil, err
	}
	specs, err := cluster.NodeSpecs(ctx, e.cl.Store())
	if err != nil {
		return nil, e.undecided("list nodes", err)
	}
	tls := e.tlsInfo(ctx)
	out := []swarm.Node{}
	for _, m := range e.cl.Members() {
		if n := e.swarmNode(m, specs[m.ID], tls); matchNode(f, n) {
			out = append(out, n)
		}
	}
	return out, nil
}

// checkNodeFilters refuses what no node can be, with docker's words.
func checkNodeFilters(f api.Filters) error {
	if err := f.Only("id", "name", "role", "membership", "label", "node.label"); err != nil {
		return err
	}
	for v := range f["role"] {
		if v != string(swarm.NodeRoleManager) && v != string(swarm.NodeRoleWorker) {
			return invalid("Invalid role filter: '%s'", v)
		}
	}
	for v := range f["membership"] {
		if v != "accepted" && v != "pending" {
			return invalid("Invalid membership filter: '%s'", v)
		}
	}
	return nil
}

// matchNode tells whether a node passes the filters. Every member has been accepted. Label asks for the labels of a node's
// engine: ours have none.
func matchNode(f api.Filters, n swarm.Node) bool {
	return f.Begins("id", n.ID) &&
		f.Begins("name", n.Description.Hostname) &&
		f.Is("role", string(n.Spec.Role)) &&
		f.Is("membership", "accepted") &&
		f.Labels("label", n.Description.Engine.Labels) && f.Labels("node.label", n.Spec.Labels)
}

// NodeInspect finds one by ID, name, start of the ID, or self.
func (e *Engine) NodeInspect(ctx context.Context, ref string) (swarm.Node, error) {
	m, err := e.member(ref)
	if err != nil {
		return swarm.Node{}, err
	}
	specs, err := cluster.NodeSpecs(ctx, e.cl.Store())
	if err != nil {
		return swarm.Node{}, e.undecided("inspect node "+m.Name, err)
	}
	return e.swarmNode(m, specs[m.ID], e.tlsInfo(ctx)), nil
}

// NodeUpdate changes a node's labels, the one part of its spec that is anybody's to choose.
func (e *Engine) NodeUpdate(ctx context.Context, ref string, version uint64, spec swarm.NodeSpec) error {
	if !e.cl.Clustered() {
		return &classed{"this host is a cluster of its own, and has no labels: minictl cluster init opens it", errdefs.ErrFailedPrecondition}
	}
	now, err := e.NodeInspect(ctx, ref)
	if err != nil {
		return err
	}
	if err := checkNodeSpec(now, spec); err != nil {
		return err
	}
	err = cluster.PutNodeSpec(ctx, e.cl.Store(), cluster.NodeID(now.ID), cluster.NodeSpec{Labels: spec.Labels, Rev: store.Revision(version)})
	if errdefs.IsConflict(err) {
		return invalid("update out of sequence: node %s was changed by somebody else; look at it again", now.Description.Hostname)
	}
	if err != nil {
		return e.undecided("update node "+now.Description.Hostname, err)
	}
	return e.synced(ctx)
}

// checkNodeSpec refuses what differs from the node as it is and cannot be chosen.
func checkNodeSpec(now swarm.Node, spec swarm.NodeSpec) error {
	if spec.Role != now.Spec.Role {
		return fmt.Errorf("node %s cannot be made a %s: the cluster itself chooses who decides, one host of up to two, three of up to four, five of more; every host takes all commands: %w",
			now.Description.Hostname, spec.Role, errdefs.ErrNotImplemented)
	}
	if spec.Name != now.Spec.Name {
		return fmt.Errorf("node %s cannot be given another name: it is the daemon's --node-name: %w", now.Description.Hostname, errdefs.ErrNotImplemented)
	}
	for k := range spec.Labels {
		if strings.TrimSpace(k) == "" {
			return invalid("invalid node label: the key is empty")
		}
	}
	return nil
}

func swarmNode(m cluster.Member, spec cluster.NodeSpec) swarm.Node {
	n := swarm.Node{
		ID: string(m.ID), Meta: swarm.Meta{Version: swarm.Version{Index: uint64(spec.Rev)}, CreatedAt: m.Joined, UpdatedAt: m.Joined},
		Spec: swarm.NodeSpec{
			Annotations: swarm.Annotations{Labels: map[string]string{}},
			Role:        swarm.NodeRoleManager, Availability: swarm.NodeAvailabilityActive,
		},
		Description: swarm.NodeDescription{
			Hostname: m.Name, Platform: swarm.Platform{Architecture: m.Arch, OS: m.OS},
			Resources: swarm.Resources{NanoCPUs: int64(m.CPUs) * 1e9, MemoryBytes: m.Memory},
			Engine:    swarm.EngineDescription{EngineVersion: m.Version},
		},
		Status: swarm.NodeStatus{State: swarm.NodeStateDown},
	}
	maps.Copy(n.Spec.Labels, spec.Labels)
	if m.Witness {
		n.Spec.Availability = swarm.NodeAvailabilityDrain // docker's word for one that takes no containers
	}
	if m.Addr.IsValid() {
		n.Status.Addr = m.Addr.Addr().String()
	}
	if m.Alive {
		n.Status.State = swarm.NodeStateReady
	}
	if m.Voter {
		n.ManagerStatus = &swarm.ManagerStatus{Leader: m.Leader, Reachability: swarm.ReachabilityReachable}
		if m.Addr.IsValid() {
			n.ManagerStatus.Addr = m.Addr.String()
		}
		if !m.Alive {
			n.ManagerStatus.Reachability = swarm.ReachabilityUnreachable
		}
	} else {
		n.Spec.Role = swarm.NodeRoleWorker
	}
	return n
}
