package api

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/network"
)

func TestWebPage(t *testing.T) {
	f := &fakes{}
	f.cl.status = ClusterStatus{Self: "node1", Summary: []string{"one voter"}, Nodes: []ClusterNodeStatus{
		{ID: "node1", Name: "host1", Addr: "10.0.0.1:7946", Role: "voter", Status: "Ready", Leader: true, Endpoints: 2},
		{ID: "node2", Name: "host2", Status: "Down", Role: "learner"},
	}}
	web := network.Network{Name: "ov_net1", ID: strings.Repeat("a", 64), Driver: "overlay", Scope: "global",
		IPAM: network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix("10.0.0.0/24"), Gateway: netip.MustParseAddr("10.0.0.1")}}}}
	f.n.list = func(Filters) ([]network.Summary, error) {
		return []network.Summary{{Network: web}, {Network: network.Network{Name: "gone", ID: "g"}}}, nil
	}
	f.n.inspect = func(ref string) (network.Inspect, error) {
		if ref == "g" {
			return network.Inspect{}, notFound("network gone not found")
		}
		return network.Inspect{Network: web,
			Containers: map[string]network.EndpointResource{"c": {Name: "<script>bbox1", EndpointID: "e1", IPv4Address: netip.MustParsePrefix("10.0.0.2/24")}},
			Services: map[string]network.ServiceInfo{"": {Tasks: []network.Task{
				{Name: "bbox1 again", EndpointID: "e1"},
				{Name: "bbox2", EndpointID: "e2", EndpointIP: netip.MustParseAddr("10.0.0.3"), Info: map[string]string{"Host IP": "192.168.66.12"}},
			}}},
		}, nil
	}
	for name, h := range map[string]http.Handler{"api": New(f.config(t)), "alone": WebPage(f.config(t))} {
		for _, path := range []string{"/", "/ui"} {
			r := newRequest("GET", path, "")
			r.Host = "127.0.0.1:8080"
			w := record(h, r)
			body := w.Body.String()
			for _, want := range []string{"host1", "host2", "Down", "voter, leader", "one voter", "ov_net1", "aaaaaaaaaaaa<", "10.0.0.0/24",
				"&lt;script&gt;bbox1", "10.0.0.2", "bbox2", "10.0.0.3", "192.168.66.12", "network gone not found", `http-equiv="refresh"`} {
				if !strings.Contains(body, want) {
					t.Errorf("%s %s lacks %q", name, path, want)
				}
			}
			for _, bad := range []string{"<script", "bbox1 again", "http://", "https://"} {
				if strings.Contains(body, bad) {
					t.Errorf("%s %s has %q", name, path, bad)
				}
			}
			if ct := w.Header().Get("Content-Type"); w.Code != 200 || ct != "text/html; charset=utf-8" {
				t.Error(w.Code, ct)
			}
		}
	}
	alone := WebPage(f.config(t))
	for _, tt := range []struct {
		method, path, host string
		code               int
	}{
		{"GET", "/", "localhost:80", 200}, {"HEAD", "/", "[::1]:80", 200}, {"GET", "/", "evil.example:80", 403},
		{"POST", "/", "localhost", 405}, {"GET", "/containers/json", "localhost", 404}, {"GET", "/", "::1", 200},
	} {
		r := newRequest(tt.method, tt.path, "")
		r.Host = tt.host
		if w := record(alone, r); w.Code != tt.code {
			t.Errorf("%+v: %d", tt, w.Code)
		}
	}
}
