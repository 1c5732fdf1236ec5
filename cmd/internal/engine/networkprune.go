package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"

	"github.com/minictl/minictl/cmd/internal/api"
)

// NetworkPrune removes the networks that nobody uses, docker's filters applied. One that cannot be removed now, such as an
// overlay when nobody decides, keeps none of the others.
func (e *Engine) NetworkPrune(ctx context.Context, f api.Filters) (network.PruneReport, error) {
	p, err := newPruneFilter(f)
	if err != nil {
		return network.PruneReport{}, err
	}
	all, err := e.allNetworks(ctx)
	if err != nil {
		return network.PruneReport{}, err
	}
	var failed []error
	report := network.PruneReport{NetworksDeleted: []string{}}
	for _, n := range all {
		if n.predefined() || n.Name == e.cfg.GatewayBridge || !p.takes(n.Labels, n.Created) {
			continue
		}
		if len(e.localUses(n.ID)) > 0 { // seen here: nobody has to decide on it
			continue
		}
		switch err := e.NetworkRemove(ctx, n.ID); {
		case err == nil:
			report.NetworksDeleted = append(report.NetworksDeleted, n.Name)
		case errdefs.IsPermissionDenied(err), errdefs.IsNotFound(err): // used, or another host was faster
		default:
			failed = append(failed, err)
		}
	}
	err = errors.Join(failed...)
	if err != nil && len(report.NetworksDeleted) > 0 {
		err = fmt.Errorf("removed %s, and not all others: %w", strings.Join(report.NetworksDeleted, ", "), err)
	}
	return report, err
}
