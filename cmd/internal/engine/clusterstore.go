package engine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/swarm"

	"github.com/minictl/minictl/cluster"
	"github.com/minictl/minictl/cmd/internal/api"
)

// StoreAdvertise resolves --cluster-advertise: an address or interface of this host, with the control port if it is not
// 7946; or nothing, for the address that leads to the store's server.
func StoreAdvertise(advertise, server string) (cluster.InitOptions, error) {
	// Ports of dockerd's API, which its --cluster-advertise named. Nothing of a cluster listens there.
	advertise = strings.TrimSuffix(strings.TrimSuffix(advertise, ":2375"), ":2376")
	if advertise == "" {
		advertise = sourceFor(server)
	}
	a, err := localAddress(advertise, "--cluster-advertise")
	if err != nil {
		return cluster.InitOptions{}, err
	}
	mtu, err := mtuOf(a.Addr())
	if err != nil {
		return cluster.InitOptions{}, err
	}
	return cluster.InitOptions{Advertise: a, MTU: mtu}, nil
}

// showStore says what is different where an external store decides.
func (e *Engine) showStore(s *api.ClusterStatus) {
	s.Store = e.cl.ExternalStore()
	if s.Store == "" {
		return
	}
	scheme, _, _ := strings.Cut(s.Store, "://")
	for i := range s.Nodes {
		s.Nodes[i].Role = scheme + " client"
	}
	down := slices.DeleteFunc(e.cl.Members(), func(m cluster.Member) bool { return m.Alive })
	s.Summary = summarizeStore(s, e.cl.StoreError(), downWords(down, e.cl.Standing().Shown))
}

func summarizeStore(s *api.ClusterStatus, away error, down []string) []string {
	if s.State != "cluster" {
		out := []string{fmt.Sprintf("This host is not in the cluster of %s yet; it goes on trying.", s.Store)}
		if away != nil {
			out = append(out, fmt.Sprintf("Now: %v.", away))
		}
		return append(out, "Containers on local networks work; none can be started on an overlay.")
	}
	hosts := fmt.Sprintf("%d hosts", len(s.Nodes))
	if len(s.Nodes) == 1 {
		hosts = "One host"
	}
	out := []string{fmt.Sprintf("%s; %s decides on networks and addresses.", hosts, s.Store),
		"If it goes away, containers go on and reach each other, and each host starts more with its addresses in reserve; networks cannot be made or removed until it is back."}
	if away != nil {
		out = []string{fmt.Sprintf("%s; nobody decides on networks and addresses now: %v.", hosts, away),
			"Containers go on and reach each other, and each host starts more with its addresses in reserve; networks cannot be made or removed until it is back."}
	}
	return append(out, down...)
}

// swarmNode is a member in docker's words. Where an external store decides, every host is as good as any other.
func (e *Engine) swarmNode(m cluster.Member, spec cluster.NodeSpec, tls swarm.TLSInfo) swarm.Node {
	m.Voter = m.Voter || e.cl.ExternalStore() != ""
	n := swarmNode(m, spec)
	n.Description.TLSInfo = tls
	return n
}
