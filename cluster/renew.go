package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/identity"
	"github.com/minictl/minictl/cluster/store"
)

// renewCheck is how often the certificate's end is looked at.
const renewCheck = 12 * time.Hour

// renewAgain is when it is looked at again after something else was under way: Close waits for the one that looks.
const renewAgain = time.Minute

// renewed gives cred, or, if it ends soon or has ended, credentials with a new certificate. The authority is in this
// host's own replica, so that a host that was switched off for months needs nobody's help to come back.
func (c *Cluster) renewed(cred *identity.Credentials, now time.Time) (*identity.Credentials, error) {
	if !cred.Due(now) {
		return cred, nil
	}
	p, ok, err := store.Get(c.ctx, c.decider(), keyCA, false)
	if err != nil {
		return nil, fmt.Errorf("renew certificate: %w", err)
	}
	if !ok {
		return nil, fmt.Errorf("renew certificate: the authority is not in this host's replica: %w", errdefs.ErrUnavailable)
	}
	var ca identity.Authority
	if err := json.Unmarshal(p.Value, &ca); err != nil {
		return nil, fmt.Errorf("renew certificate: %w", err)
	}
	csr, err := c.node.Request()
	if err != nil {
		return nil, err
	}
	cert, _, err := ca.Sign(csr, now)
	if err != nil {
		return nil, err
	}
	next, err := c.node.Credentials(cert, ca.Cert.Raw)
	if err != nil {
		return nil, fmt.Errorf("renew certificate: %w", err)
	}
	c.log.Info("renewed certificate", "expires", next.Cert.Leaf.NotAfter)
	return next, next.Save(c.files.identity())
}

// keepCertificate renews the certificate of a daemon that runs for months.
func (c *Cluster) keepCertificate(ctx context.Context) {
	next := time.NewTimer(renewCheck)
	defer next.Stop()
	for {
		select {
		case <-next.C:
		case <-ctx.Done():
			return
		}
		if !c.op.TryLock() {
			next.Reset(renewAgain)
			continue
		}
		next.Reset(renewCheck)
		if err := c.renewRunning(time.Now()); err != nil {
			c.log.Warn("cannot renew certificate", "err", err)
		}
		c.op.Unlock()
	}
}

func (c *Cluster) renewRunning(now time.Time) error {
	s := c.session()
	if s == nil {
		return nil
	}
	next, err := c.renewed(s.cred, now)
	if err != nil || next == s.cred {
		return err
	}
	s.tr.SetCredentials(next)
	s.cred = next
	return nil
}
