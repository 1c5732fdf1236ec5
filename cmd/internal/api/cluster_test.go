package api

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"
)

func TestClientSwarm(t *testing.T) {
	f := &fakes{}
	var calls []string
	note := func(format string, args ...any) { calls = append(calls, fmt.Sprintf(format, args...)) }
	f.cl.init = func(r ClusterInitRequest) (ClusterInitResponse, error) {
		note("init %+v", r)
		return ClusterInitResponse{NodeID: "node1"}, nil
	}
	f.cl.join = func(r ClusterJoinRequest) (ClusterJoinResponse, error) {
		note("join %+v", r)
		switch r.Remote {
		case "dead":
			return ClusterJoinResponse{}, errdefs.ErrUnavailable.WithMessage("no answer")
		case "twice:1":
			return ClusterJoinResponse{}, errdefs.ErrFailedPrecondition.WithMessage("this host is in a cluster already")
		}
		return ClusterJoinResponse{}, nil
	}
	f.cl.leave = func(force bool) error { note("leave %v", force); return nil }
	f.cl.token = func(rotate bool) (ClusterToken, error) {
		note("token %v", rotate)
		return ClusterToken{Token: "T"}, nil
	}
	f.cl.nodes = []swarm.Node{{ID: "node1", Status: swarm.NodeStatus{State: swarm.NodeStateReady}}}
	socket := serve(t, f)
	c, ctx := dial(t, socket), t.Context()

	if _, err := c.SwarmInspect(ctx, client.SwarmInspectOptions{}); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "This node is not a swarm manager.") {
		t.Error(err)
	}
	res, err := c.SwarmInit(ctx, client.SwarmInitOptions{ListenAddr: "0.0.0.0:2377", AdvertiseAddr: "eth0:2377", DataPathAddr: "10.1.1.1", DataPathPort: 4790,
		DefaultAddrPool: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")}, SubnetSize: 26})
	if err != nil || res.NodeID != "node1" {
		t.Error(res, err)
	}
	f.s.state = "active/manager"
	f.s.info.Swarm.Cluster = &swarm.ClusterInfo{ID: "cl"}
	if s, err := c.SwarmInspect(ctx, client.SwarmInspectOptions{}); err != nil || s.Swarm.JoinTokens.Worker != "T" || s.Swarm.JoinTokens.Manager != "T" || s.Swarm.ID != "cl" {
		t.Error(s, err)
	}
	if _, err := c.SwarmUpdate(ctx, client.SwarmUpdateOptions{Spec: swarm.Spec{CAConfig: swarm.CAConfig{ForceRotate: 1}}}); err != nil {
		t.Error(err)
	}
	if s, err := c.SwarmInspect(ctx, client.SwarmInspectOptions{}); err != nil || !s.Swarm.RootRotationInProgress {
		t.Error(s, err)
	}
	for _, spec := range []swarm.Spec{
		{CAConfig: swarm.CAConfig{ForceRotate: 1, SigningCACert: "x"}}, {CAConfig: swarm.CAConfig{ExternalCAs: []*swarm.ExternalCA{{}}}},
		{CAConfig: swarm.CAConfig{NodeCertExpiry: 1}}, {EncryptionConfig: swarm.EncryptionConfig{AutoLockManagers: true}}, {},
	} {
		if _, err := c.SwarmUpdate(ctx, client.SwarmUpdateOptions{Spec: spec}); !errdefs.IsNotImplemented(err) {
			t.Errorf("%+v: %v", spec, err)
		}
	}
	if nodes, err := c.NodeList(ctx, client.NodeListOptions{}); err != nil || len(nodes.Items) != 1 {
		t.Error(nodes, err)
	}
	if n, err := c.NodeInspect(ctx, "node1", client.NodeInspectOptions{}); err != nil || n.Node.ID != "node1" {
		t.Error(n, err)
	}
	if _, err := c.NodeInspect(ctx, "node9", client.NodeInspectOptions{}); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
	join := func(remotes ...string) error {
		return second(c.SwarmJoin(ctx, client.SwarmJoinOptions{JoinToken: "T", RemoteAddrs: remotes}))
	}
	if err := join("dead:2377", "10.0.0.1:2377"); err != nil {
		t.Error(err)
	}
	if err := join("twice:1", "never"); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "in a cluster already") {
		t.Error(err)
	}
	if _, err := c.SwarmLeave(ctx, client.SwarmLeaveOptions{Force: true}); err != nil {
		t.Error(err)
	}
	if _, err := c.SwarmUpdate(ctx, client.SwarmUpdateOptions{RotateWorkerToken: true}); err != nil {
		t.Error(err)
	}
	for name, o := range map[string]client.SwarmInitOptions{
		"--autolock": {AutoLockManagers: true}, "--availability": {Availability: "drain"},
	} {
		if _, err := c.SwarmInit(ctx, o); !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.cl.recover = func(dryRun bool) (ClusterRecoverResponse, error) {
		note("recover %v", dryRun)
		if len(calls) > 9 {
			return ClusterRecoverResponse{}, errdefs.ErrFailedPrecondition.WithMessage("recover cluster: host1 decides for the cluster and answers")
		}
		return ClusterRecoverResponse{NodeID: "node1"}, nil
	}
	if res, err := c.SwarmInit(ctx, client.SwarmInitOptions{ForceNewCluster: true}); err != nil || res.NodeID != "node1" {
		t.Error(res, err)
	}
	if _, err := c.SwarmInit(ctx, client.SwarmInitOptions{ForceNewCluster: true}); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "host1 decides") {
		t.Error(err)
	}
	want := []string{
		"init {AdvertiseAddr:eth0 DataPathAddr:10.1.1.1 DataPathPort:4790 AddrPools:[10.20.0.0/16] AddrPoolBits:26}", "token false", "token false",
		"join {Token:T Remote:dead AdvertiseAddr: DataPathAddr:}", "join {Token:T Remote:10.0.0.1 AdvertiseAddr: DataPathAddr:}",
		"join {Token:T Remote:twice:1 AdvertiseAddr: DataPathAddr:}", "leave true", "token true", "recover false", "recover false",
	}
	if !slices.Equal(calls, want) {
		t.Errorf("calls\n%s\nwant\n%s", strings.Join(calls, "\n"), strings.Join(want, "\n"))
	}
}

func TestClusterRoutes(t *testing.T) {
	f := &fakes{}
	f.cl.init = func(r ClusterInitRequest) (ClusterInitResponse, error) {
		return ClusterInitResponse{NodeName: r.AdvertiseAddr, JoinCommand: "minictl cluster join --token T 10.0.0.1"}, nil
	}
	f.cl.join = func(r ClusterJoinRequest) (ClusterJoinResponse, error) {
		return ClusterJoinResponse{NodeName: r.Remote, Nodes: 2}, nil
	}
	f.cl.leave = func(force bool) error {
		if !force {
			return errdefs.ErrFailedPrecondition.WithMessage("last host")
		}
		return nil
	}
	f.cl.token = func(rotate bool) (ClusterToken, error) { return ClusterToken{Token: fmt.Sprint(rotate)}, nil }
	f.cl.status = ClusterStatus{State: "cluster"}
	f.cl.recover = func(dryRun bool) (ClusterRecoverResponse, error) {
		return ClusterRecoverResponse{Epoch: fmt.Sprint(dryRun)}, nil
	}
	f.cl.rejoin = func(remote string) error {
		if remote == "" {
			return errdefs.ErrFailedPrecondition.WithMessage("no host is met on another side")
		}
		return nil
	}
	h := New(f.config(t))
	tests := []struct {
		method, path, body string
		code               int
		want               string
	}{
		{"POST", "/cluster/init", `{"AdvertiseAddr":"eth0"}`, 200, `"NodeName":"eth0"`},
		{"POST", "/v1.51/cluster/init", "", 200, `"JoinCommand":"minictl cluster join --token T 10.0.0.1"`},
		{"POST", "/cluster/join", `{"Token":"T","Remote":"10.0.0.1"}`, 200, `"NodeName":"10.0.0.1"`},
		{"POST", "/cluster/leave", "", 409, "last host"},
		{"POST", "/cluster/leave?force=1", "", 200, ""},
		{"GET", "/cluster/token", "", 200, `"Token":"false"`},
		{"POST", "/cluster/token?rotate=true", "", 200, `"Token":"true"`},
		{"POST", "/cluster/recover", `{"DryRun":true}`, 200, `"Epoch":"true","Summary":[]`},
		{"POST", "/cluster/recover", "", 200, `"Epoch":"false"`},
		{"POST", "/cluster/find", `{"Node":"host2","Addr":"192.0.2.2"}`, 200, ""},
		{"POST", "/cluster/find", `{"Node":"host3","Addr":"192.0.2.2"}`, 404, "not found"},
		{"POST", "/cluster/rejoin", "", 409, "no host is met"},
		{"POST", "/cluster/rejoin", `{"Remote":"host1"}`, 200, ""},
		{"GET", "/cluster/status", "", 200, `"Nodes":[],"Summary":[]`},
	}
	for _, tt := range tests {
		r := newRequest(tt.method, tt.path, tt.body)
		w := record(h, r)
		if w.Code != tt.code || !strings.Contains(w.Body.String(), tt.want) {
			t.Errorf("%s %s: %d %s", tt.method, tt.path, w.Code, w.Body)
		}
	}
}
