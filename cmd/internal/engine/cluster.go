package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"

	"github.com/minictl/minictl/cluster"
	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/runtime/container"
)

// ClusterInit opens this host to others.
func (e *Engine) ClusterInit(ctx context.Context, req api.ClusterInitRequest) (r api.ClusterInitResponse, err error) {
	if e.cfg.Witness {
		return r, &classed{"a witness joins a cluster and cannot be the first of one: run minictl cluster init on a host that runs containers", errdefs.ErrFailedPrecondition}
	}
	o, err := initOptions(req.AdvertiseAddr, req.DataPathAddr, req.DataPathPort)
	if err != nil {
		return r, err
	}
	if e.cl.Clustered() { // Init refuses it; the cluster's pools stay as they are
		return r, e.cl.Init(ctx, o)
	}
	undo, err := e.choosePools(ctx, req.AddrPools, req.AddrPoolBits)
	if err != nil {
		return r, err
	}
	if err := e.cl.Init(ctx, o); err != nil {
		undo()
		return r, err
	}
	if err := e.settleIn(ctx); err != nil {
		undo()
		return r, err
	}
	token, err := e.ClusterToken(ctx, false)
	if err != nil {
		return r, err
	}
	self := e.cl.Self()
	return api.ClusterInitResponse{NodeID: string(self.ID), NodeName: self.Name, Token: token, JoinCommand: token.JoinCommand}, nil
}

// ClusterJoin makes this host a member of another's cluster.
func (e *Engine) ClusterJoin(ctx context.Context, req api.ClusterJoinRequest) (r api.ClusterJoinResponse, err error) {
	if req.Token == "" {
		return r, invalid("no join token given: minictl cluster token, on a member, prints the whole command")
	}
	if req.Remote == "" {
		return r, invalid("no member's address given: minictl cluster token, on a member, prints the whole command")
	}
	advertise := req.AdvertiseAddr
	if advertise == "" {
		advertise = sourceFor(req.Remote)
	}
	o, err := initOptions(advertise, req.DataPathAddr, 0)
	if err != nil {
		return r, err
	}
	if err := checkReached(o.Advertise.Addr(), "--advertise-addr"); err != nil {
		return r, err
	}
	if err := checkReached(o.DataPath, "--data-path-addr"); err != nil {
		return r, err
	}
	if err := e.cl.Join(ctx, cluster.JoinOptions{Token: req.Token, Remote: req.Remote, InitOptions: o}); err != nil {
		return r, err
	}
	if err := e.settleIn(ctx); err != nil {
		return r, err
	}
	return e.joined(ctx), nil
}

// joined says in which cluster this host is now. Whoever has just come in lists members of long ago for a moment.
func (e *Engine) joined(ctx context.Context) api.ClusterJoinResponse {
	nodes, err := cluster.CountNodes(ctx, e.cl.Store())
	if err != nil {
		nodes = len(e.cl.Members())
	}
	self := e.cl.Self()
	return api.ClusterJoinResponse{NodeID: string(self.ID), NodeName: self.Name, ClusterID: e.cl.ID(), Nodes: nodes}
}

// settleIn makes the data path of a cluster that this host has just come into. Without one it does not stay.
func (e *Engine) settleIn(ctx context.Context) error {
	err := e.adoptDataPath(ctx)
	if err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	return errors.Join(err, e.cl.Leave(ctx, true))
}

// adoptDataPath makes the overlays use the tunnel end that this host has now, and lets members' packets in.
func (e *Engine) adoptDataPath(ctx context.Context) error {
	if e.cfg.Witness {
		return nil
	}
	self := e.cl.Self()
	var d netdriver.DataPath
	if e.cl.Clustered() {
		d = netdriver.DataPath{Addr: self.DataPath, Port: self.DataPathPort, MTU: e.pathMTU()}
	}
	err := e.cfg.Overlay.SetDataPath(ctx, d)
	if err != nil { // of one network, say: the others are to work
		err = fmt.Errorf("set up the data path: %w", err)
	}
	e.tellRoutes() // Leave has forgotten them
	return errors.Join(err, e.applyMembers(ctx))
}

// applyMembers states the live members to the firewall, and every overlay's remote endpoints to its driver.
func (e *Engine) applyMembers(ctx context.Context) error {
	var port uint16
	var members []netip.Addr
	if e.cl.Clustered() {
		port = e.cl.Self().DataPathPort
		for _, m := range e.cl.Members() {
			if m.DataPath.IsValid() && !m.Witness {
				members = append(members, m.DataPath)
			}
		}
	}
	err := e.cfg.Firewall.SetMembers(ctx, port, members)
	if err != nil {
		err = fmt.Errorf("let members' packets in: %w", err)
	}
	e.netMu.Lock()
	var ids []string
	for id := range e.attached {
		ids = append(ids, id)
	}
	e.netMu.Unlock()
	return errors.Join(err, e.Applied(ctx, ids))
}

// Applied brings this host's resolver and overlays up to the records that other hosts have changed. It returns when
// both answer accordingly: the other host's run waits for it.
func (e *Engine) Applied(ctx context.Context, networks []string) error {
	e.zones.dropNetworks(networks)
	e.netMu.Lock()
	defer e.netMu.Unlock()
	var errs []error
	for _, id := range networks {
		if len(e.attached[id]) > 0 {
			errs = append(errs, e.cfg.Overlay.SetPeers(ctx, netdriver.NetworkID(id), e.peers(id)))
		}
	}
	return errors.Join(errs...)
}

// MembersChanged is called when a member came, went or failed; with an external store this host itself may have come in.
func (e *Engine) MembersChanged() {
	e.zones.dropAll()
	e.wakeReconcile()
	wake(e.nodeWake)
	wake(e.pluginWake)
	ctx, cancel := context.WithTimeout(e.ctx, undoTimeout)
	defer cancel()
	if err := e.adoptDataPath(ctx); err != nil && e.ctx.Err() == nil {
		e.log.Error("follow the members", "err", err)
	}
}

// ClusterLeave takes this host out of its cluster.
func (e *Engine) ClusterLeave(ctx context.Context, force bool) error {
	if !e.cl.Clustered() {
		return &classed{"this host is in no cluster: there is nothing to leave", errdefs.ErrFailedPrecondition}
	}
	if !force {
		if err := e.keepsNetworks(ctx); err != nil {
			return err
		}
	}
	var running []*box
	var names []string
	for _, b := range e.all() {
		if slices.ContainsFunc(b.statusCopy().Endpoints, func(ep container.Endpoint) bool { return ep.OnCluster() }) {
			running = append(running, b)
			names = append(names, b.specCopy().Name)
		}
	}
	if len(running) > 0 && !force {
		return &classed{fmt.Sprintf("containers on overlay networks run on this host: %s; remove them, or leave with --force, which stops them", strings.Join(names, ", ")), errdefs.ErrFailedPrecondition}
	}
	if err := e.haltAll(ctx, running); err != nil {
		return err
	}
	if err := e.cl.Leave(ctx, force); err != nil {
		return err
	}
	return e.adoptDataPath(ctx)
}

// keepsNetworks refuses to lose what no other host has: the last one of a cluster takes its networks with it, as docker's
// last manager does. An external store keeps them.
func (e *Engine) keepsNetworks(ctx context.Context) error {
	if len(e.cl.Members()) > 1 || e.cl.ExternalStore() != "" {
		return nil
	}
	networks, _, err := e.globalNetworks(ctx, false)
	if err != nil || len(networks) == 0 {
		return err
	}
	var names []string
	for _, n := range networks {
		names = append(names, n.Name)
	}
	slices.Sort(names)
	list := strings.Join(names, " ")
	return &classed{fmt.Sprintf("this host is the last one of its cluster, whose global networks (%s) would be lost: run `minictl network rm %s` first, or leave with --force, which removes them and stops the containers on them", list, list), errdefs.ErrFailedPrecondition}
}

// haltsAtOnce bounds how many containers haltAll ends side by side.
const haltsAtOnce = 32

// haltAll ends containers side by side, as each may take all of its stop timeout. One that cannot be ended keeps none of the
// others.
func (e *Engine) haltAll(ctx context.Context, boxes []*box) error {
	errs := make([]error, len(boxes))
	var g errgroup.Group
	g.SetLimit(haltsAtOnce)
	for i, b := range boxes {
		g.Go(func() error {
			errs[i] = e.halt(ctx, b, "", nil)
			return nil
		})
	}
	_ = g.Wait() // the first error is not all
	return errors.Join(errs...)
}

// ClusterToken is what the next host needs.
func (e *Engine) ClusterToken(ctx context.Context, rotate bool) (t api.ClusterToken, err error) {
	if !e.cl.Clustered() {
		return t, &classed{"this host is a cluster of its own that no other can join yet: minictl cluster init opens it", errdefs.ErrFailedPrecondition}
	}
	t.Token, t.Expires, err = e.cl.Token(ctx, rotate)
	if errdefs.IsUnavailable(err) {
		return t, e.undecided("get join token", err)
	}
	if err != nil {
		return t, err
	}
	addr := e.cl.Self().Addr
	remote := addr.Addr().String()
	if addr.Port() != cluster.ControlPort {
		remote = addr.String()
	}
	t.JoinCommand = "minictl cluster join --token " + t.Token + " " + remote
	return t, nil
}

func pickMember(all []cluster.Member, ref string) (cluster.Member, error) {
	var found []cluster.Member
	for _, m := range all {
		if string(m.ID) == ref || m.Name == ref {
			return m, nil
		}
		if ref != "" && strings.HasPrefix(string(m.ID), ref) {
			found = append(found, m)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return cluster.Member{}, notFound("node %s not found", ref)
	}
	return cluster.Member{}, invalid("node %s is ambiguous (%d matches found)", ref, len(found))
}

// initOptions resolves what the user calls an address: an IP of this host, an interface, or nothing for the one that
// leads outside.
func initOptions(advertise, dataPath string, port uint16) (o cluster.InitOptions, err error) {
	if port != 0 && (port < 1024 || port > 49151) {
		return o, invalid("data path port %d is outside of docker's range: choose one from 1024 to 49151, or leave it out for 4789", port)
	}
	a, err := localAddress(advertise, "--advertise-addr")
	if err != nil {
		return o, err
	}
	d := a
	if dataPath != "" {
		if d, err = localAddress(dataPath, "--data-path-addr"); err != nil {
			return o, err
		}
	}
	mtu, err := mtuOf(d.Addr())
	if err != nil {
		return o, err
	}
	return cluster.InitOptions{Advertise: a, DataPath: d.Addr(), DataPathPort: port, MTU: mtu}, nil
}

// checkReached refuses, of a host that joins others, an address by which it reaches nobody but itself: they would wait for it.
// The first host of a cluster may have one, as with docker, until others are to join it.
func checkReached(a netip.Addr, flag string) error {
	if !a.IsLoopback() {
		return nil
	}
	return invalid("%s is a loopback address, by which no other host reaches this one: give %s an address or an interface that others reach; this host's interfaces are %s", a, flag, interfaceNames())
}

// sourceFor is this host's address on the way to a member: the natural one to advertise to it. No packet is sent.
func sourceFor(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	c, err := net.Dial("udp", net.JoinHostPort(host, "9"))
	if err != nil {
		return ""
	}
	defer c.Close()
	return netip.MustParseAddrPort(c.LocalAddr().String()).Addr().Unmap().String()
}
