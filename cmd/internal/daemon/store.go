package daemon

import (
	"github.com/minictl/minictl/cluster"
	"github.com/minictl/minictl/cluster/store/external"
	"github.com/minictl/minictl/cmd/internal/config"
	"github.com/minictl/minictl/cmd/internal/engine"
)

// clusterStore is the external store of --cluster-store, if there is one.
func clusterStore(cfg config.Config) *cluster.External {
	if cfg.ClusterStore == "" {
		return nil
	}
	return &cluster.External{
		Name: cfg.Store.String(),
		Dial: func() (external.Remote, error) { return cfg.Store.Dial() },
		Advertise: func() (cluster.InitOptions, error) {
			return engine.StoreAdvertise(cfg.ClusterAdvertise, cfg.Store.Hosts[0])
		},
	}
}
