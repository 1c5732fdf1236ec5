package engine

import (
	"context"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"

	"github.com/minictl/minictl/cmd/internal/api"
)

// NetworkPrune removes the networks that nobody uses, docker's filters applied.
func (e *Engine) NetworkPrune(ctx context.Context, f api.Filters) (network.PruneReport, error) {
	p, err := newPruneFilter(f)
	if err != nil {
		return network.PruneReport{}, err
	}
	all, err := e.allNetworks(ctx)
	if err != nil {
		return network.PruneReport{}, err
	}
	report := network.PruneReport{NetworksDeleted: []string{}}
	for _, n := range all {
		if n.predefined() || n.Name == e.cfg.GatewayBridge || !p.takes(n.Labels, n.Created) {
			continue
		}
		if err := e.NetworkRemove(ctx, n.ID); err == nil {
			report.NetworksDeleted = append(report.NetworksDeleted, n.Name)
		} else if !errdefs.IsPermissionDenied(err) {
			return report, err
		}
	}
	return report, nil
}
