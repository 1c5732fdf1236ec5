package engine

import "github.com/minictl/minictl/cmd/internal/api"

// Metrics are the daemon's figures.
func (e *Engine) Metrics() []api.Metric {
	one := func(n int) []api.Sample { return []api.Sample{{Value: uint64(n)}} }
	var repaired []api.Sample
	counts := e.drift.counts()
	for _, kind := range driftKinds() {
		repaired = append(repaired, api.Sample{Label: "kind", Of: kind, Value: uint64(counts[kind])})
	}
	alive, down, known := 0, 0, 0
	for _, m := range e.cl.Members() {
		if m.Alive {
			alive++
		} else {
			down++
		}
	}
	if _, ok := e.cl.Leader(); ok {
		known = 1
	}
	endpoints := 0
	for _, b := range e.all() {
		endpoints += len(b.statusCopy().Endpoints)
	}
	queries, failures := e.cfg.Resolver.Counts()
	return []api.Metric{
		{Name: "minictl_drift_repaired_total", Help: "What others changed in the kernel and was repaired.", Counter: true, Samples: repaired},
		{Name: "minictl_members", Help: "Hosts of the cluster, this one among them.", Samples: []api.Sample{
			{Label: "state", Of: "alive", Value: uint64(alive)}, {Label: "state", Of: "down", Value: uint64(down)},
		}},
		{Name: "minictl_leader_known", Help: "1 while somebody decides for the cluster.", Samples: one(known)},
		{Name: "minictl_endpoints", Help: "Endpoints of this host's containers.", Samples: one(endpoints)},
		{Name: "minictl_dns_queries_total", Help: "Queries of this host's containers.", Counter: true, Samples: []api.Sample{{Value: queries}}},
		{Name: "minictl_dns_failures_total", Help: "Queries answered with SERVFAIL, or not at all.", Counter: true, Samples: []api.Sample{{Value: failures}}},
	}
}
