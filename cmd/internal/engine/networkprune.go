package engine

import (
	"context"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"

	"github.com/minictl/minictl/cmd/internal/api"
)

// NetworkPrune removes the networks that nobody uses, docker's filters applied.
func (e *Engine) NetworkPrune(ctx context.Context, f api.Filters) (network.PruneReport, error) {
	if err := known(f, "label", "label!", "until"); err != nil {
		return network.PruneReport{}, err
	}
	all, err := e.allNetworks(ctx)
	if err != nil {
		return network.PruneReport{}, err
	}
	report := network.PruneReport{NetworksDeleted: []string{}}
	for _, n := range all {
		if n.predefined() || n.Name == e.cfg.GatewayBridge || !matchLabels(f["label"], n.Labels) ||
			len(f["label!"]) > 0 && matchLabels(f["label!"], n.Labels) || len(f["until"]) > 0 && !olderThan(f["until"], n.Created) {
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

func olderThan(until map[string]bool, created time.Time) bool {
	for u := range until {
		if d, err := time.ParseDuration(u); err == nil {
			return created.Before(time.Now().Add(-d))
		}
		if t, err := parseTime(u); err == nil {
			return created.Before(t)
		}
	}
	return false
}
