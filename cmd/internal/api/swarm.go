package api

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/swarm"
)

// swarmRoutes let docker swarm init, join, leave and docker node ls work. Every host is a manager in docker's sense:
// there are no workers, and one token for all.
func (s *server) swarmRoutes() []route {
	return []route{
		{"POST", "/swarm/init", s.swarmInit},
		{"POST", "/swarm/join", s.swarmJoin},
		{"POST", "/swarm/leave", s.swarmLeave},
		{"POST", "/swarm/update", s.swarmUpdate},
		{"GET", "/swarm", s.swarmInspect},
		{"GET", "/nodes", s.nodeList},
		{"GET", "/nodes/{id}", s.nodeInspect},
		{"DELETE", "/nodes/{id}", s.nodeRemove},
		{"POST", "/nodes/{id}/update", s.nodeUpdate},
		{"GET", "/tasks", s.taskList},
	}
}

// swarmError gives docker's status on these routes: a host that is in the wrong state for the wish is 503 here, not 409.
func swarmError(err error) error {
	switch errdefs.Resolve(err) {
	case errdefs.ErrFailedPrecondition, errdefs.ErrConflict, errdefs.ErrAlreadyExists: //nolint:errorlint // Resolve gives the class itself, never a wrapped one
		return errdefs.ErrUnavailable.WithMessage(message(err))
	}
	return err
}

// swarmInit refuses the options that would promise something; ListenAddr is ignored, since there is one port.
func (s *server) swarmInit(w http.ResponseWriter, c *call) error {
	var req swarm.InitRequest
	if err := c.body(w, &req); err != nil {
		return err
	}
	switch {
	case req.ForceNewCluster:
		return s.swarmRecover(w, c)
	case req.AutoLockManagers || req.Spec.EncryptionConfig.AutoLockManagers:
		return notImplemented("--autolock is not supported; keep the daemon's data folder on an encrypted disk instead")
	case req.DataPathPort > math.MaxUint16:
		return invalid("invalid data path port %d: must be below 65536", req.DataPathPort)
	}
	if err := checkAvailability(req.Availability); err != nil {
		return err
	}
	ctx, cancel := c.detached()
	defer cancel()
	res, err := s.Cluster.ClusterInit(ctx, ClusterInitRequest{
		AdvertiseAddr: hostOf(req.AdvertiseAddr), DataPathAddr: hostOf(req.DataPathAddr), DataPathPort: uint16(req.DataPathPort),
		AddrPools: req.DefaultAddrPool, AddrPoolBits: int(req.SubnetSize),
	})
	if err != nil {
		return swarmError(err)
	}
	return writeJSON(w, http.StatusOK, res.NodeID)
}

// swarmRecover is docker swarm init --force-new-cluster: a takeover that is not asked about.
func (s *server) swarmRecover(w http.ResponseWriter, c *call) error {
	ctx, cancel := c.detached()
	defer cancel()
	res, err := s.Cluster.ClusterRecover(ctx, false)
	if err != nil {
		return swarmError(err)
	}
	return writeJSON(w, http.StatusOK, res.NodeID)
}

// swarmJoin takes the one token for both of docker's roles.
func (s *server) swarmJoin(w http.ResponseWriter, c *call) error {
	var req swarm.JoinRequest
	if err := c.body(w, &req); err != nil {
		return err
	}
	if err := checkAvailability(req.Availability); err != nil {
		return err
	}
	if len(req.RemoteAddrs) == 0 {
		return invalid("at least 1 RemoteAddr is required to join")
	}
	ctx, cancel := c.detached()
	defer cancel()
	if err := s.joinAny(ctx, req); err != nil {
		return swarmError(err)
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// joinAny tries one member after the other; only silence is a reason to ask the next.
func (s *server) joinAny(ctx context.Context, req swarm.JoinRequest) (err error) {
	for _, remote := range req.RemoteAddrs {
		_, err = s.Cluster.ClusterJoin(ctx, ClusterJoinRequest{
			Token: req.JoinToken, Remote: remoteOf(remote),
			AdvertiseAddr: hostOf(req.AdvertiseAddr), DataPathAddr: hostOf(req.DataPathAddr),
		})
		if err == nil || !errdefs.IsUnavailable(err) {
			return err
		}
	}
	return err
}

// swarmLeave is clusterLeave with docker's statuses.
func (s *server) swarmLeave(w http.ResponseWriter, c *call) error {
	ctx, cancel := c.detached()
	defer cancel()
	if err := s.Cluster.ClusterLeave(ctx, c.flag("force")); err != nil {
		return swarmError(err)
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// swarmUpdate rotates the token; there is no swarm-wide setting to change.
func (s *server) swarmUpdate(w http.ResponseWriter, c *call) error {
	var spec swarm.Spec
	if err := c.body(w, &spec); err != nil {
		return err
	}
	ca := spec.CAConfig
	switch {
	case ca.SigningCACert != "" || ca.SigningCAKey != "" || len(ca.ExternalCAs) > 0:
		return notImplemented("a certificate authority of your own (--ca-cert, --ca-key, --external-ca) is not supported; leave these out and the cluster makes a new one")
	case ca.NodeCertExpiry != 0:
		return notImplemented("--cert-expiry is not supported; certificates are renewed in time by themselves")
	case spec.EncryptionConfig.AutoLockManagers || c.flag("rotateManagerUnlockKey"):
		return notImplemented("--autolock is not supported; keep the daemon's data folder on an encrypted disk instead")
	case ca.ForceRotate > 0:
		return s.swarmRotateCA(c)
	case !c.flag("rotateWorkerToken") && !c.flag("rotateManagerToken"):
		return notImplemented("updating the swarm's settings is not supported; a cluster has none")
	}
	ctx, cancel := c.detached()
	defer cancel()
	if _, err := s.Cluster.ClusterToken(ctx, true); err != nil {
		return swarmError(err)
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// swarmRotateCA is docker swarm ca --rotate, which then looks how far that is.
func (s *server) swarmRotateCA(c *call) error {
	ctx, cancel := c.detached()
	defer cancel()
	return swarmError(s.Cluster.ClusterRotateCA(ctx, false))
}

// swarmInspect is where docker swarm init and join-token read the token.
func (s *server) swarmInspect(w http.ResponseWriter, c *call) error {
	if s.System.SwarmState(c.Context()) == string(swarm.LocalNodeStateInactive) {
		return errNoManager()
	}
	info, err := s.System.Info(c.Context())
	if err != nil {
		return err
	}
	token, err := s.Cluster.ClusterToken(c.Context(), false)
	if err != nil {
		return swarmError(err)
	}
	out := swarm.Swarm{JoinTokens: swarm.JoinTokens{Worker: token.Token, Manager: token.Token}}
	if info.Swarm.Cluster != nil {
		out.ClusterInfo = *info.Swarm.Cluster
	}
	r, err := s.Cluster.ClusterRotation(c.Context())
	if err != nil {
		return swarmError(err)
	}
	out.RootRotationInProgress = r.UnderWay
	return writeJSON(w, http.StatusOK, out)
}

// nodeList is docker node ls; the client then asks /info which row is this host.
func (s *server) nodeList(w http.ResponseWriter, c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	list, err := s.Cluster.NodeList(c.Context(), f)
	if err != nil {
		return swarmError(err)
	}
	return writeJSON(w, http.StatusOK, orEmpty(list))
}

// nodeInspect takes an ID or a name; docker resolves self by /info.
func (s *server) nodeInspect(w http.ResponseWriter, c *call) error {
	node, err := s.Cluster.NodeInspect(c.Context(), c.name)
	if err != nil {
		return swarmError(err)
	}
	return writeJSON(w, http.StatusOK, node)
}

// nodeRemove drops a host that is gone; docker answers 200 without a body.
func (s *server) nodeRemove(w http.ResponseWriter, c *call) error {
	ctx, cancel := c.detached()
	defer cancel()
	if err := s.Cluster.NodeRemove(ctx, c.name, c.flag("force")); err != nil {
		return swarmError(err)
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// nodeUpdate takes the whole spec and the version of the one it was made from, so that nobody undoes another's change.
func (s *server) nodeUpdate(w http.ResponseWriter, c *call) error {
	var spec swarm.NodeSpec
	if err := c.body(w, &spec); err != nil {
		return err
	}
	version, err := strconv.ParseUint(c.text("version"), 10, 64)
	if err != nil {
		return invalid("invalid node version %s: %v", shown(c.text("version")), errors.Unwrap(err))
	}
	if spec.Role != swarm.NodeRoleManager && spec.Role != swarm.NodeRoleWorker {
		return invalid("invalid Role: %s", shown(string(spec.Role)))
	}
	if spec.Availability == "" {
		return invalid("invalid Availability: \"\"")
	}
	if err := checkAvailability(spec.Availability); err != nil {
		return err
	}
	ctx, cancel := c.detached()
	defer cancel()
	if err := s.Cluster.NodeUpdate(ctx, c.name, version, spec); err != nil {
		return swarmError(err)
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// taskList answers that there are none, which docker node ps asks: tasks are parts of services, and there are no services.
func (s *server) taskList(w http.ResponseWriter, c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	known := []string{"id", "label", "name", "node", "service", "desired-state", "up-to-date", "runtime"}
	for key := range f {
		if !slices.Contains(known, key) {
			return invalid("invalid filter %s", shown(key))
		}
	}
	if s.System.SwarmState(c.Context()) == string(swarm.LocalNodeStateInactive) {
		return errNoManager()
	}
	return writeJSON(w, http.StatusOK, []swarm.Task{})
}

// errNoManager is docker's for questions about a swarm to a host without one.
func errNoManager() error {
	return errdefs.ErrUnavailable.WithMessage("This node is not a swarm manager. Use \"docker swarm init\" or " +
		"\"docker swarm join\" to connect this node to swarm and try again.")
}

// checkAvailability refuses pause and drain, which speak of services' tasks.
func checkAvailability(a swarm.NodeAvailability) error {
	switch a {
	case "", swarm.NodeAvailabilityActive:
		return nil
	case swarm.NodeAvailabilityPause, swarm.NodeAvailabilityDrain:
	default:
		return invalid("invalid Availability: %s", shown(string(a)))
	}
	return fmt.Errorf("availability %s has no meaning without services; leave --availability out: %w",
		shown(string(a)), errdefs.ErrNotImplemented)
}

// hostOf drops docker's optional port: ours is the same everywhere.
func hostOf(addr string) string {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}

// remoteOf drops docker's port 2377, which nothing listens on here; any other is meant.
func remoteOf(addr string) string {
	if host, port, err := net.SplitHostPort(addr); err == nil && port == "2377" {
		return host
	}
	return addr
}
