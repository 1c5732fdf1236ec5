package engine

import (
	"cmp"
	"context"
	"io"
	"net/netip"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster"
	"github.com/minictl/minictl/cmd/internal/api"
)

// ClusterBackup writes down what the cluster has decided, secrets included.
func (e *Engine) ClusterBackup(ctx context.Context, w io.Writer) error {
	b, err := e.cl.Backup(ctx)
	if errdefs.IsUnavailable(err) {
		return e.undecided("back up the cluster", err)
	}
	if err != nil {
		return err
	}
	return b.Write(w)
}

// ClusterRestore makes this host the one that wrote the backup.
func (e *Engine) ClusterRestore(ctx context.Context, req api.ClusterRestoreRequest, backup io.Reader) (r api.ClusterRestoreResponse, err error) {
	b, err := cluster.ReadBackup(backup)
	if err != nil {
		return r, err
	}
	o, err := restoreOptions(req, b.Self)
	if err != nil {
		return r, err
	}
	if err := e.cl.Restore(ctx, b, o); err != nil {
		return r, err
	}
	e.wakeReconcile()
	self := e.cl.Self()
	r = api.ClusterRestoreResponse{NodeID: string(self.ID), NodeName: self.Name, ClusterID: e.cl.ID(), Epoch: e.cl.Epoch(), Made: b.Made}
	for _, id := range e.cl.Standing().Missing {
		r.Missing = append(r.Missing, e.nodeName(string(id)))
	}
	return r, e.adoptDataPath(ctx)
}

// restoreOptions keep the addresses of the host that wrote the backup, if they are this host's.
func restoreOptions(req api.ClusterRestoreRequest, was cluster.Node) (cluster.InitOptions, error) {
	advertise := req.AdvertiseAddr
	if _, err := interfaceOf(was.Addr.Addr()); err == nil && advertise == "" {
		advertise = was.Addr.String()
		if _, err := interfaceOf(was.DataPath); err == nil {
			req.DataPathAddr = cmp.Or(req.DataPathAddr, was.DataPath.String())
		}
	}
	o, err := initOptions(advertise, req.DataPathAddr, was.DataPathPort)
	if err == nil && advertise == "" {
		o.Advertise = netip.AddrPortFrom(o.Advertise.Addr(), was.Addr.Port())
	}
	return o, err
}

// ClusterRotateCA begins to replace the cluster's certificate authority; finish ends what was begun without waiting for
// hosts that do not follow.
func (e *Engine) ClusterRotateCA(ctx context.Context, finish bool) error {
	do := e.cl.RotateAuthority
	if finish {
		do = e.cl.FinishRotation
	}
	err := do(ctx)
	if errdefs.IsUnavailable(err) {
		return e.undecided("rotate the cluster's authority", err)
	}
	return err
}

// ClusterRotation tells how far a replacement of authority or keys is.
func (e *Engine) ClusterRotation(ctx context.Context) (r api.ClusterRotation, err error) {
	r.UnderWay, r.Waiting, err = e.cl.Rotation(ctx)
	return r, err
}
