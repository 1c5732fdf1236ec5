// Package plugin is a network driver and an address manager as a third party writes one: from libnetwork's pages on the
// protocol alone, with the program ip for the kernel and nothing of minictl's.
//
// Its networks are bridges, its endpoints veth pairs; its books are in memory, and it refuses whatever does not fit them.
// A test can read the calls it heard and its books, and make methods fail or hang.
package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Options are how a plugin is. They can be changed while it runs (Control).
type Options struct {
	Implements []string // nil: NetworkDriver and IpamDriver
	Scope      string   // local unless given
	Reach      string   // ConnectivityScope
	AskGateway bool     // GwAllocChecker; it answers that it wants none
	Gateway    bool     // Join answers the network's gateway, which the bridge has
	NoService  bool     // Join answers DisableGatewayService
	Prefix     string   // DstPrefix; eth unless given
	WantMAC    bool     // RequiresMACAddress
	WantReplay bool     // RequiresRequestReplay
	Routes     []Route  // StaticRoutes
	Missing    []string // methods answered with 404
	Namespace  string   // path of the network namespace it works in; empty: its own
	// Fail makes methods answer so, Hang makes them answer nothing until the caller is gone. Answer is given as it is.
	Fail   map[string]string
	Hang   []string
	Answer map[string]json.RawMessage
}

// Route is an entry of StaticRoutes.
type Route struct {
	Destination string
	RouteType   int
	NextHop     string
}

// Books are what a plugin has been told and not to forget.
type Books struct {
	Networks  []string
	Endpoints []string
	Joined    []string
	External  []string
	Allocated []string
	Nodes     []string
	Pools     []string
	Addresses []string
}

// Empty tells whether nothing is left but nodes.
func (b Books) Empty() bool {
	return len(b.Networks)+len(b.Endpoints)+len(b.Joined)+len(b.External)+len(b.Allocated)+len(b.Pools)+len(b.Addresses) == 0
}

// Plugin is one. It serves HTTP.
type Plugin struct {
	mu    sync.Mutex
	opts  Options
	calls []string

	networks  map[string]network // by ID
	allocated map[string]bool
	endpoints map[string]endpoint
	nodes     map[string]bool // by address: whether it is this one
	pools     map[string]*pool
	labels    map[string]string // short names of IDs in calls
	counts    map[byte]int
}

type network struct {
	bridge  string
	tunnel  string // to the other nodes, of a plugin that connects them
	gateway string
}

type endpoint struct {
	network          string
	joined, external bool
}

type pool struct {
	prefix, sub netip.Prefix
	given       map[netip.Addr]bool
}

// New gives a plugin with empty books.
func New(o Options) *Plugin {
	return &Plugin{
		opts: o, networks: map[string]network{}, allocated: map[string]bool{}, endpoints: map[string]endpoint{},
		nodes: map[string]bool{}, pools: map[string]*pool{}, labels: map[string]string{}, counts: map[byte]int{},
	}
}

// Serve answers on a unix socket until ctx ends. The socket is gone then.
func Serve(ctx context.Context, socket string, p *Plugin) error {
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		return err
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: p}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// maxRequest bounds what is read of a request, in bytes.
const maxRequest = 1 << 20

// ServeHTTP answers the protocol's calls, and those of tests.
func (p *Plugin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := strings.TrimPrefix(r.URL.Path, "/")
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if name, ok := strings.CutPrefix(method, "Test."); ok {
		p.test(w, name, body)
		return
	}
	p.mu.Lock()
	p.calls = append(p.calls, method+" "+p.short(body))
	o := p.opts
	p.mu.Unlock()
	if slices.Contains(o.Hang, method) {
		<-r.Context().Done()
		return
	}
	if slices.Contains(o.Missing, method) {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/vnd.docker.plugins.v1.2+json")
	if raw, ok := o.Answer[method]; ok {
		_, _ = w.Write(raw)
		return
	}
	complaint := "Err"
	if strings.HasPrefix(method, "IpamDriver.") {
		complaint = "Error"
	}
	var answer any
	if sentence, ok := o.Fail[method]; ok {
		err = errors.New(sentence)
	} else {
		p.mu.Lock()
		answer, err = p.answer(method, body)
		p.mu.Unlock()
	}
	if errors.Is(err, errUnknown) {
		http.NotFound(w, r)
		return
	}
	if err != nil {
		answer = map[string]string{complaint: err.Error()}
	}
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

var errUnknown = errors.New("no such method")

// test answers a test's own questions.
func (p *Plugin) test(w http.ResponseWriter, name string, body []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var answer any = struct{}{}
	switch name {
	case "Calls": // and forgets them
		answer = append([]string{}, p.calls...)
		p.calls = nil
	case "Books":
		answer = p.books()
	case "Options":
		var o Options
		if err := json.Unmarshal(body, &o); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		p.opts = o
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func (p *Plugin) books() Books {
	b := Books{
		Networks: slices.Sorted(maps.Keys(p.networks)), Endpoints: slices.Sorted(maps.Keys(p.endpoints)), Pools: slices.Sorted(maps.Keys(p.pools)),
		Allocated: slices.Sorted(maps.Keys(p.allocated)), Nodes: slices.Sorted(maps.Keys(p.nodes)),
	}
	for _, id := range b.Endpoints {
		if p.endpoints[id].joined {
			b.Joined = append(b.Joined, id)
		}
		if p.endpoints[id].external {
			b.External = append(b.External, id)
		}
	}
	for _, id := range b.Pools {
		for a := range p.pools[id].given {
			b.Addresses = append(b.Addresses, a.String())
		}
	}
	slices.Sort(b.Addresses)
	return b
}

// short gives a request's body with N1, E1 … for the IDs in it, in the order in which they were heard of.
func (p *Plugin) short(body []byte) string {
	text := strings.TrimSpace(string(body))
	var ids struct{ NetworkID, EndpointID string }
	_ = json.Unmarshal(body, &ids)
	for kind, id := range map[byte]string{'N': ids.NetworkID, 'E': ids.EndpointID} {
		if id == "" {
			continue
		}
		if p.labels[id] == "" {
			p.counts[kind]++
			p.labels[id] = fmt.Sprintf("%c%d", kind, p.counts[kind])
		}
		text = strings.ReplaceAll(text, id, p.labels[id])
	}
	return text
}

// request holds every field that a call of either kind may have.
type request struct {
	NetworkID, EndpointID, SandboxKey string
	Options                           map[string]any
	IPv4Data, IPv6Data                []struct{ AddressSpace, Pool, Gateway string }
	Interface                         struct{ Address, AddressIPv6, MacAddress string }
	DiscoveryType                     int
	DiscoveryData                     struct {
		Address string
		Self    bool `json:"self"`
	}

	AddressSpace, Pool, SubPool, PoolID, Address string
	V6                                           bool
}

// answer does what a call asks for.
func (p *Plugin) answer(method string, body []byte) (any, error) {
	var r request
	if len(body) > 0 {
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, err
		}
	}
	ok := struct{}{}
	switch method {
	case "Plugin.Activate":
		kinds := p.opts.Implements
		if kinds == nil {
			kinds = []string{"NetworkDriver", "IpamDriver"}
		}
		return map[string]any{"Implements": kinds}, nil
	case "NetworkDriver.GetCapabilities":
		scope := p.opts.Scope
		if scope == "" {
			scope = "local"
		}
		return map[string]any{"Scope": scope, "ConnectivityScope": p.opts.Reach, "GwAllocChecker": p.opts.AskGateway}, nil
	case "NetworkDriver.GwAllocCheck":
		return map[string]bool{"SkipIPv4": true, "SkipIPv6": true}, nil
	case "NetworkDriver.AllocateNetwork":
		p.allocated[r.NetworkID] = true
		return map[string]any{"Options": map[string]string{"allocated": "yes"}}, nil
	case "NetworkDriver.FreeNetwork":
		if !p.allocated[r.NetworkID] {
			return nil, errors.New("free a network that was not allocated")
		}
		delete(p.allocated, r.NetworkID)
		return ok, nil
	case "NetworkDriver.CreateNetwork":
		return ok, p.createNetwork(r)
	case "NetworkDriver.DeleteNetwork":
		return ok, p.deleteNetwork(r)
	case "NetworkDriver.CreateEndpoint":
		return map[string]any{"Interface": struct{}{}}, p.createEndpoint(r)
	case "NetworkDriver.EndpointOperInfo":
		return map[string]any{"Value": map[string]any{"end": "veth"}}, p.known(r)
	case "NetworkDriver.DeleteEndpoint":
		return ok, p.deleteEndpoint(r)
	case "NetworkDriver.Join":
		return p.join(r)
	case "NetworkDriver.Leave":
		return ok, p.change(r, func(e *endpoint) bool { was := e.joined; e.joined = false; return was })
	case "NetworkDriver.ProgramExternalConnectivity":
		return ok, p.change(r, func(e *endpoint) bool { was := e.external; e.external = true; return !was })
	case "NetworkDriver.RevokeExternalConnectivity":
		return ok, p.change(r, func(e *endpoint) bool { was := e.external; e.external = false; return was })
	case "NetworkDriver.DiscoverNew":
		return ok, p.meet(r.DiscoveryData.Address, r.DiscoveryData.Self)
	case "NetworkDriver.DiscoverDelete":
		delete(p.nodes, r.DiscoveryData.Address)
		return ok, nil
	}
	return p.manage(method, r)
}

func (p *Plugin) createNetwork(r request) error {
	if _, ok := p.networks[r.NetworkID]; ok {
		return fmt.Errorf("network %s exists", r.NetworkID)
	}
	n := network{bridge: "pn" + r.NetworkID[:8]}
	if err := p.ip("link", "add", n.bridge, "type", "bridge"); err != nil {
		return err
	}
	if len(r.IPv4Data) > 0 {
		n.gateway = r.IPv4Data[0].Gateway
	}
	if p.opts.Gateway && n.gateway != "" {
		if err := p.ip("addr", "add", n.gateway, "dev", n.bridge); err != nil {
			return err
		}
	}
	if err := p.ip("link", "set", n.bridge, "up"); err != nil {
		return err
	}
	// A bridge that never had a port says that it carries frames, one whose last port has gone does not: the latter, always.
	port, inside := ends(r.NetworkID)
	if err := errors.Join(p.ip("link", "add", port, "type", "veth", "peer", "name", inside), p.ip("link", "set", port, "master", n.bridge),
		p.ip("link", "set", port, "up"), p.ip("link", "del", port)); err != nil {
		return err
	}
	if p.opts.Reach == "global" {
		if err := p.tunnel(&n, r.NetworkID); err != nil {
			return err
		}
	}
	p.networks[r.NetworkID] = n
	return nil
}

// tunnel connects a bridge with those of the other nodes. All of them derive the same number from the network.
func (p *Plugin) tunnel(n *network, id string) error {
	n.tunnel = "pv" + id[:8]
	vni := crc32.ChecksumIEEE([]byte(id)) & 0xffffff
	err := p.run("ip", "link", "add", n.tunnel, "type", "vxlan", "id", fmt.Sprint(vni), "dstport", "4799")
	if err == nil {
		err = p.run("ip", "link", "set", n.tunnel, "master", n.bridge, "up")
	}
	for addr, self := range p.nodes {
		if err == nil && !self {
			err = p.flood(*n, addr)
		}
	}
	return err
}

// flood has frames for all sent to a node too.
func (p *Plugin) flood(n network, addr string) error {
	return p.run("bridge", "fdb", "append", "00:00:00:00:00:00", "dev", n.tunnel, "dst", addr)
}

// meet takes up a node.
func (p *Plugin) meet(addr string, self bool) error {
	if _, ok := p.nodes[addr]; ok {
		return fmt.Errorf("node %s is known", addr)
	}
	p.nodes[addr] = self
	for _, n := range p.networks {
		if n.tunnel != "" && !self {
			if err := p.flood(n, addr); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *Plugin) deleteNetwork(r request) error {
	n, ok := p.networks[r.NetworkID]
	if !ok {
		return fmt.Errorf("network %s is unknown", r.NetworkID)
	}
	for _, e := range p.endpoints {
		if e.network == r.NetworkID {
			return fmt.Errorf("network %s has endpoints", r.NetworkID)
		}
	}
	delete(p.networks, r.NetworkID)
	if n.tunnel != "" {
		if err := p.ip("link", "del", n.tunnel); err != nil {
			return err
		}
	}
	return p.ip("link", "del", n.bridge)
}

// ends are the names of an endpoint's two ends: the bridge's and the container's.
func ends(id string) (port, inside string) { return "pp" + id[:8], "pc" + id[:8] }

func (p *Plugin) createEndpoint(r request) error {
	n, ok := p.networks[r.NetworkID]
	if !ok {
		return fmt.Errorf("network %s is unknown", r.NetworkID)
	}
	if _, ok := p.endpoints[r.EndpointID]; ok {
		return fmt.Errorf("endpoint %s exists", r.EndpointID)
	}
	port, inside := ends(r.EndpointID)
	if err := p.ip("link", "add", port, "type", "veth", "peer", "name", inside); err != nil {
		return err
	}
	p.endpoints[r.EndpointID] = endpoint{network: r.NetworkID}
	return errors.Join(p.ip("link", "set", port, "master", n.bridge), p.ip("link", "set", port, "up"))
}

func (p *Plugin) known(r request) error {
	if e, ok := p.endpoints[r.EndpointID]; !ok || e.network != r.NetworkID {
		return fmt.Errorf("endpoint %s is unknown", r.EndpointID)
	}
	return nil
}

func (p *Plugin) deleteEndpoint(r request) error {
	if err := p.known(r); err != nil {
		return err
	}
	if e := p.endpoints[r.EndpointID]; e.joined || e.external {
		return fmt.Errorf("endpoint %s has not left", r.EndpointID)
	}
	delete(p.endpoints, r.EndpointID)
	port, _ := ends(r.EndpointID)
	_ = p.ip("link", "del", port) // it may have gone with the container
	return nil
}

func (p *Plugin) change(r request, change func(*endpoint) (fits bool)) error {
	if err := p.known(r); err != nil {
		return err
	}
	e := p.endpoints[r.EndpointID]
	if !change(&e) {
		return fmt.Errorf("endpoint %s is so already", r.EndpointID)
	}
	p.endpoints[r.EndpointID] = e
	return nil
}

func (p *Plugin) join(r request) (any, error) {
	if err := p.change(r, func(e *endpoint) bool { was := e.joined; e.joined = true; return !was }); err != nil {
		return nil, err
	}
	_, inside := ends(r.EndpointID)
	prefix := p.opts.Prefix
	if prefix == "" {
		prefix = "eth"
	}
	answer := map[string]any{"InterfaceName": map[string]string{"SrcName": inside, "DstPrefix": prefix}, "StaticRoutes": p.opts.Routes}
	if n := p.networks[r.NetworkID]; p.opts.Gateway && n.gateway != "" {
		answer["Gateway"], _, _ = strings.Cut(n.gateway, "/")
	}
	if p.opts.NoService {
		answer["DisableGatewayService"] = true
	}
	return answer, nil
}

// ip runs the program in the plugin's namespace.
func (p *Plugin) ip(args ...string) error {
	return p.run(append([]string{"ip"}, args...)...)
}

// run is ip for any program.
func (p *Plugin) run(args ...string) error {
	if ns := p.opts.Namespace; ns != "" {
		args = append([]string{"nsenter", "--net=" + ns}, args...)
	}
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
