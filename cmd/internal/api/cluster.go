package api

import (
	"context"
	"net/http"
)

// clusterRoutes are ours: docker's words for the same, in swarm.go, cannot say everything.
func (s *server) clusterRoutes() []route {
	return []route{
		{"POST", "/cluster/init", s.clusterInit},
		{"POST", "/cluster/join", s.clusterJoin},
		{"POST", "/cluster/leave", s.clusterLeave},
		{"GET", "/cluster/token", s.clusterToken},
		{"POST", "/cluster/token", s.clusterToken},
		{"GET", "/cluster/status", s.clusterStatus},
		{"POST", "/cluster/recover", s.clusterRecover},
		{"POST", "/cluster/rejoin", s.clusterRejoin},
		{"POST", "/cluster/find", s.clusterFind},
		{"GET", "/cluster/backup", s.clusterBackup},
		{"POST", "/cluster/restore", s.clusterRestore},
		{"GET", "/cluster/ca", s.clusterCA},
		{"POST", "/cluster/ca", s.clusterRotateCA},
	}
}

// clusterInit makes this host the first of a cluster; the answer holds the line to paste on the others.
func (s *server) clusterInit(w http.ResponseWriter, c *call) error {
	var req ClusterInitRequest
	if err := c.body(w, &req); err != nil {
		return err
	}
	ctx, cancel := c.detached()
	defer cancel()
	res, err := s.Cluster.ClusterInit(ctx, req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, res)
}

// clusterJoin refuses what cannot work before anything of this host is given up for it.
func (s *server) clusterJoin(w http.ResponseWriter, c *call) error {
	var req ClusterJoinRequest
	if err := c.body(w, &req); err != nil {
		return err
	}
	if req.Token == "" || req.Remote == "" {
		return invalid("join cluster: token and address of a member are needed; \"minictl cluster token\" on a member prints both")
	}
	ctx, cancel := c.detached()
	defer cancel()
	res, err := s.Cluster.ClusterJoin(ctx, req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, res)
}

// clusterLeave makes this host a cluster of its own again.
func (s *server) clusterLeave(w http.ResponseWriter, c *call) error {
	return c.do(w, http.StatusOK, func(ctx context.Context) error { return s.Cluster.ClusterLeave(ctx, c.flag("force")) })
}

// clusterToken rotates with POST only: a GET must be safe to repeat.
func (s *server) clusterToken(w http.ResponseWriter, c *call) error {
	rotate := c.flag("rotate")
	if rotate && c.Method != http.MethodPost {
		return invalid("rotate cluster token: use POST")
	}
	ctx, cancel := c.detached()
	defer cancel()
	token, err := s.Cluster.ClusterToken(ctx, rotate)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, token)
}

// clusterRecover takes the cluster over; what that means can be asked first.
func (s *server) clusterRecover(w http.ResponseWriter, c *call) error {
	var req ClusterRecoverRequest
	if err := c.body(w, &req); err != nil {
		return err
	}
	ctx, cancel := c.detached()
	defer cancel()
	res, err := s.Cluster.ClusterRecover(ctx, req.DryRun)
	if err != nil {
		return err
	}
	res.Summary = orEmpty(res.Summary)
	return writeJSON(w, http.StatusOK, res)
}

// clusterRejoin gives up what this side of a cluster that was taken over twice has decided.
func (s *server) clusterRejoin(w http.ResponseWriter, c *call) error {
	var req ClusterRejoinRequest
	if err := c.body(w, &req); err != nil {
		return err
	}
	return c.do(w, http.StatusOK, func(ctx context.Context) error { return s.Cluster.ClusterRejoin(ctx, req.Remote) })
}

// clusterFind tells this host where another has moved to.
func (s *server) clusterFind(w http.ResponseWriter, c *call) error {
	var req ClusterFindRequest
	if err := c.body(w, &req); err != nil {
		return err
	}
	if err := s.Cluster.ClusterFind(c.Context(), req.Node, req.Addr); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// clusterBackup is in the clear, as all that the socket's owner may know; the command line encrypts it before it is kept.
func (s *server) clusterBackup(w http.ResponseWriter, c *call) error {
	w.Header().Set("Content-Type", "application/json")
	if err := s.Cluster.ClusterBackup(c.Context(), w); err != nil {
		w.Header().Del("Content-Type")
		return err
	}
	return nil
}

// clusterRestore takes what clusterBackup gave.
func (s *server) clusterRestore(w http.ResponseWriter, c *call) error {
	if err := c.checkJSON(); err != nil {
		return err
	}
	ctx, cancel := c.detached()
	defer cancel()
	req := ClusterRestoreRequest{AdvertiseAddr: c.text("advertise-addr"), DataPathAddr: c.text("data-path-addr")}
	res, err := s.Cluster.ClusterRestore(ctx, req, c.Body)
	if err != nil {
		return err
	}
	res.Missing = orEmpty(res.Missing)
	return writeJSON(w, http.StatusOK, res)
}

// clusterCA tells how far a rotation is.
func (s *server) clusterCA(w http.ResponseWriter, c *call) error {
	r, err := s.Cluster.ClusterRotation(c.Context())
	if err != nil {
		return err
	}
	r.Waiting = orEmpty(r.Waiting)
	return writeJSON(w, http.StatusOK, r)
}

// clusterRotateCA returns when the rotation has begun: it may have to wait for hosts.
func (s *server) clusterRotateCA(w http.ResponseWriter, c *call) error {
	return c.do(w, http.StatusOK, func(ctx context.Context) error { return s.Cluster.ClusterRotateCA(ctx, c.flag("finish")) })
}

// clusterStatus hardly waits for others, a fraction of a second for those that are up: it is asked when they are dead.
func (s *server) clusterStatus(w http.ResponseWriter, c *call) error {
	status, err := s.Cluster.ClusterStatus(c.Context())
	if err != nil {
		return err
	}
	status.Nodes, status.Summary = orEmpty(status.Nodes), orEmpty(status.Summary)
	return writeJSON(w, http.StatusOK, status)
}
