package cluster

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/minictl/minictl/cluster/records"
)

// Default ports: control plane (TCP and UDP) and VXLAN (UDP, RFC 7348).
const (
	ControlPort  = 7946
	DataPathPort = 4789
)

// NodeID is a node's identity: 25 characters, a hash of its public key.
type NodeID string

// Node is what the cluster knows of a host. The owner of the identity writes it, the addresses may change.
type Node struct {
	ID           NodeID         `json:"id"`
	Name         string         `json:"name"` // unique in the cluster
	Addr         netip.AddrPort `json:"addr,omitzero"`
	DataPath     netip.Addr     `json:"dataPath,omitzero"`     // outer address of its VXLAN packets
	DataPathPort uint16         `json:"dataPathPort,omitzero"` // UDP
	MTU          int            `json:"mtu,omitempty"`         // of the data path, bytes
	Version      string         `json:"version,omitempty"`
	Witness      bool           `json:"witness,omitempty"` // it votes, and runs no containers
	Joined       time.Time      `json:"joined,omitzero"`
	OS           string         `json:"os,omitempty"`
	Arch         string         `json:"arch,omitempty"`
	CPUs         int            `json:"cpus,omitempty"`
	Memory       int64          `json:"memory,omitempty"` // bytes
	// Routes are the prefixes that this host routes elsewhere, sorted: no host may give them to a network's containers.
	Routes []netip.Prefix `json:"routes,omitempty"`
}

// equal compares two records; the routes make a Node too big for ==.
func (n Node) equal(o Node) bool {
	routes := slices.Equal(n.Routes, o.Routes)
	n.Routes, o.Routes = nil, nil
	return routes && reflect.DeepEqual(n, o)
}

// Member is a node and how it is now, seen from this host.
type Member struct {
	Node
	Alive     bool
	Voter     bool // takes part in the Store's decisions; the others are learners
	Leader    bool
	Endpoints int // on global networks
}

// Record is one endpoint on a global network.
type Record = records.Record

// Owned is a record, the host it belongs to, and where packets for it go.
type Owned struct {
	Record
	Owner NodeID
	VTEP  netip.Addr // the owner's DataPath; invalid while this host is alone
	Alive bool       // false while the owner is thought dead
}

// nodeName is what a host may be called: what a DNS label may be, and dots and underscores, as host names have them.
const nodeName = `^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$`

func checkNodeName(name string) error {
	if ok, err := regexp.MatchString(nodeName, name); err != nil || !ok {
		return fmt.Errorf("node name %q must be 1 to 63 letters, digits, dots, dashes and underscores: give another with --node-name: %w", name, errdefs.ErrInvalidArgument)
	}
	return nil
}

// decodeNode reads a node record, from the Store or from a joining host.
func decodeNode(b []byte) (Node, error) {
	var n Node
	if err := json.Unmarshal(b, &n); err != nil {
		return Node{}, fmt.Errorf("decode node: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return n, n.check()
}

func (n Node) check() error {
	switch {
	case n.ID == "":
		return fmt.Errorf("node %q has no ID: %w", n.Name, errdefs.ErrInvalidArgument)
	case !n.Addr.IsValid() || n.Addr.Addr().IsUnspecified() || n.Addr.Port() == 0:
		return fmt.Errorf("node %q: address %v cannot be reached: %w", n.Name, n.Addr, errdefs.ErrInvalidArgument)
	case !n.DataPath.IsValid() || n.DataPath.IsUnspecified():
		return fmt.Errorf("node %q: data path address %v cannot be reached: %w", n.Name, n.DataPath, errdefs.ErrInvalidArgument)
	}
	return checkNodeName(n.Name)
}

// describe fills in what the host itself tells.
func describe(n Node) Node {
	n.OS, n.Arch, n.CPUs = runtime.GOOS, runtime.GOARCH, runtime.NumCPU()
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err == nil {
		n.Memory = int64(info.Totalram) * int64(info.Unit)
	}
	return n
}

// InitOptions are the addresses of the first node. Advertise is an address of this host, which alone is listened on;
// port 0 means ControlPort. DataPath defaults to it, DataPathPort to 4789.
type InitOptions struct {
	Advertise    netip.AddrPort
	DataPath     netip.Addr
	DataPathPort uint16
	MTU          int
}

func (o InitOptions) node(self Node) Node {
	if o.Advertise.Port() == 0 {
		o.Advertise = netip.AddrPortFrom(o.Advertise.Addr(), ControlPort)
	}
	if !o.DataPath.IsValid() {
		o.DataPath = o.Advertise.Addr()
	}
	if o.DataPathPort == 0 {
		o.DataPathPort = DataPathPort
	}
	self.Addr, self.DataPath, self.DataPathPort, self.MTU = o.Advertise, o.DataPath, o.DataPathPort, o.MTU
	self.Joined = time.Now().UTC().Truncate(time.Second)
	return self
}
