package cluster

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/identity"
	"github.com/minictl/minictl/cluster/rpc"
	"github.com/minictl/minictl/cluster/transport"
)

// renewCheck is how often the certificate's end is looked at.
const renewCheck = 12 * time.Hour

// renewAgain is when it is looked at again after something else was under way: Close waits for the one that looks.
const renewAgain = time.Minute

// renewed gives cred, or, if it ends soon or has ended or is of another authority than that which signs now, credentials
// with a new certificate. The authority is in this host's own replica, so that a host that was switched off for months
// needs nobody's help to come back, unless the authority was replaced meanwhile (renewVia).
func (c *Cluster) renewed(cred *identity.Credentials, now time.Time) (*identity.Credentials, error) {
	s, err := c.readSecrets(c.ctx, false)
	if err != nil {
		if cred.Due(now) {
			return nil, fmt.Errorf("renew certificate: %w", err)
		}
		return cred, nil
	}
	if s.roots.Generation < c.snapshotState().Authority {
		return cred, nil // the replica has not caught up with what another member gave out
	}
	next := cred
	if cred.Due(now) || !cred.CA.Equal(s.ca.Cert) {
		if next, err = s.ca.Issue(c.node, now); err != nil {
			return nil, fmt.Errorf("renew certificate: %w", err)
		}
	}
	if next, err = next.Accepting(s.roots.Roots); err != nil {
		return nil, err
	}
	if next.Same(cred) {
		return cred, nil
	}
	c.log.Info("renewed certificate", "expires", next.Cert.Leaf.NotAfter, "authorities", len(next.Roots))
	return next, c.keepCredentials(next, s.roots.Generation)
}

func (c *Cluster) keepCredentials(cred *identity.Credentials, generation uint64) error {
	if err := cred.Save(c.files.identity()); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.st.Authority == generation {
		return nil
	}
	c.st.Authority = generation
	return c.files.save(c.st)
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
		if err := c.renewRunning(c.now()); err != nil {
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
	next, err := c.renewed(s.tr.Credentials(), now)
	if err == nil {
		s.tr.SetCredentials(next)
	}
	return err
}

// renewVia is for a host that finds no authority in common with a member: its certificate has ended while the machine
// slept, or the authority was replaced while it was away. The member knows it by its key, and it knows the member so.
func (c *Cluster) renewVia(ctx context.Context, via NodeID) {
	if !c.op.TryLock() {
		return // it is tried again with the next connection
	}
	defer c.op.Unlock()
	s := c.session()
	if s == nil || ctx.Err() != nil {
		return
	}
	if err := c.renewRunning(c.now()); err != nil {
		c.log.Warn("cannot renew certificate", "err", err)
	}
	if via == "" {
		return
	}
	if err := c.askRenewal(ctx, s, via); err != nil {
		c.log.Debug("certificate not renewed", "node", via, "name", c.nameOf(via), "err", err)
	}
}

func (c *Cluster) askRenewal(ctx context.Context, s *session, via NodeID) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	csr, err := c.node.Request()
	if err != nil {
		return err
	}
	client := rpc.NewClient(func(ctx context.Context, id string) (net.Conn, error) { return s.tr.Dial(ctx, id, transport.Renew) })
	defer client.Close()
	own := c.snapshotState().Authority
	r, err := rpc.Call[renewRequest, renewReply](ctx, client, string(via), callRenew, renewRequest{csr, own}, true)
	if err != nil {
		return err
	}
	next, err := c.credentialsOf(r, own)
	if err != nil {
		return err
	}
	if err := c.keepCredentials(next, r.Roots.Generation); err != nil {
		return err
	}
	s.tr.SetCredentials(next)
	c.setKeys(r.Keys)
	c.log.Info("the cluster's authority was replaced while this host was away: certificate renewed", "node", via, "name", c.nameOf(via))
	return nil
}

// credentialsOf checks another member's answer.
func (c *Cluster) credentialsOf(r renewReply, own uint64) (*identity.Credentials, error) {
	if r.Roots.Generation <= own || len(r.Keys) == 0 {
		return nil, fmt.Errorf("the member's answer is incomplete: %w", errdefs.ErrInvalidArgument)
	}
	cred, err := c.node.Credentials(r.Certificate, r.Authority)
	if err != nil {
		return nil, err
	}
	return cred.Accepting(r.Roots.Roots)
}
