package api

import (
	"context"
	_ "embed"
	"html/template"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/network"
)

//go:embed page.html
var pageHTML string

// WebPage serves the read-only page alone, for a loopback TCP port that a browser can reach. Of cfg it uses Log,
// System, Network and Cluster. It answers only to this machine's own names: a web site that points its name at
// 127.0.0.1 would otherwise read the page through its visitor's browser.
func WebPage(cfg Config) http.Handler {
	page := newPage(cfg)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !ownName(r.Host):
			http.Error(w, "unknown host name", http.StatusForbidden)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			http.Error(w, "read only", http.StatusMethodNotAllowed)
		case r.URL.Path != "/" && r.URL.Path != "/ui":
			http.NotFound(w, r)
		default:
			page.ServeHTTP(w, r)
		}
	})
}

// ownName tells whether a Host header holds an address or a name that always means this machine.
func ownName(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	return host == "" || host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// pageData is what the template shows.
type pageData struct {
	Host, Version, Time string
	Status              ClusterStatus
	Networks            []pageNetwork
	Problems            []string
}

type pageNetwork struct {
	ID, Name, Driver, Scope string
	Subnets                 []pageSubnet
	Endpoints               []pageEndpoint
}

type pageSubnet struct{ Subnet, Gateway string }

type pageEndpoint struct{ Name, ID, Address, MAC, Host string }

// newPage makes the page's handler. The policy header forbids all scripts, whatever a name might smuggle in.
func newPage(cfg Config) http.Handler {
	tmpl := template.Must(template.New("page").Funcs(template.FuncMap{"short": short}).Parse(pageHTML))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		if err := tmpl.Execute(w, gather(r.Context(), cfg)); err != nil {
			cfg.Log.Debug("web page not sent", "err", err)
		}
	})
}

// gather asks every back end; one that fails becomes a line on the page, since the page is looked at when things fail.
func gather(ctx context.Context, cfg Config) pageData {
	d := pageData{Time: time.Now().Format(time.TimeOnly)}
	problem := func(err error) { d.Problems = append(d.Problems, message(err)) }
	if v, err := cfg.System.Version(ctx); err != nil {
		problem(err)
	} else {
		d.Version = v.Version
	}
	var err error
	if d.Status, err = cfg.Cluster.ClusterStatus(ctx); err != nil {
		problem(err)
	}
	for _, n := range d.Status.Nodes {
		if n.ID == d.Status.Self {
			d.Host = n.Name
		}
	}
	list, err := cfg.Network.NetworkList(ctx, nil)
	if err != nil {
		problem(err)
	}
	for _, n := range list {
		info, err := cfg.Network.NetworkInspect(ctx, n.ID, "", true)
		if err != nil { // removed meanwhile, most likely
			problem(err)
			continue
		}
		d.Networks = append(d.Networks, describe(info.Inspect))
	}
	slices.SortFunc(d.Networks, func(a, b pageNetwork) int { return strings.Compare(a.Name, b.Name) })
	return d
}

// describe turns one network's inspection into rows. Endpoints of other hosts come as services' tasks.
func describe(info network.Inspect) pageNetwork {
	n := pageNetwork{ID: info.ID, Name: info.Name, Driver: info.Driver, Scope: info.Scope}
	for _, c := range info.IPAM.Config {
		s := pageSubnet{Subnet: c.Subnet.String()}
		if c.Gateway.IsValid() {
			s.Gateway = c.Gateway.String()
		}
		n.Subnets = append(n.Subnets, s)
	}
	seen := map[string]bool{}
	for _, e := range info.Containers {
		seen[e.EndpointID] = true
		row := pageEndpoint{Name: e.Name, ID: e.EndpointID, MAC: e.MacAddress.String(), Host: "this host"}
		for _, p := range []netip.Prefix{e.IPv6Address, e.IPv4Address} { // IPv4 if there is both
			if p.IsValid() {
				row.Address = p.Addr().String()
			}
		}
		n.Endpoints = append(n.Endpoints, row)
	}
	for _, service := range info.Services {
		for _, t := range service.Tasks {
			if seen[t.EndpointID] {
				continue
			}
			seen[t.EndpointID] = true
			n.Endpoints = append(n.Endpoints, pageEndpoint{
				Name: t.Name, ID: t.EndpointID, Address: t.EndpointIP.String(), Host: t.Info["Host IP"],
			})
		}
	}
	slices.SortFunc(n.Endpoints, func(a, b pageEndpoint) int { return strings.Compare(a.Name, b.Name) })
	return n
}

// short is docker's short form of an ID.
func short(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}
