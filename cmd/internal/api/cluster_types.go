package api

import (
	"net/netip"
	"time"
)

// The bodies of /cluster/*, the part of the API that is ours. The command line imports them too.

// ClusterInitRequest is the body of POST /cluster/init. Addresses may be an IP address or an interface's name; empty
// means the address that routes to the outside.
type ClusterInitRequest struct {
	AdvertiseAddr string `json:"AdvertiseAddr,omitempty"`
	DataPathAddr  string `json:"DataPathAddr,omitempty"` // default: AdvertiseAddr
	DataPathPort  uint16 `json:"DataPathPort,omitempty"` // UDP; default 4789
	// AddrPools are the ranges that overlay networks are cut from (default 10.0.0.0/8), AddrPoolBits the prefix length of
	// each network's part (default 24).
	AddrPools    []netip.Prefix `json:"AddrPools,omitempty"`
	AddrPoolBits int            `json:"AddrPoolBits,omitempty"`
}

// ClusterInitResponse says how others join.
type ClusterInitResponse struct {
	NodeID      string       `json:"NodeID"`
	NodeName    string       `json:"NodeName"`
	Token       ClusterToken `json:"Token"`
	JoinCommand string       `json:"JoinCommand"` // complete, to be pasted on another host
}

// ClusterJoinRequest is the body of POST /cluster/join.
type ClusterJoinRequest struct {
	Token         string `json:"Token"`
	Remote        string `json:"Remote"` // HOST or HOST:PORT of any member
	AdvertiseAddr string `json:"AdvertiseAddr,omitempty"`
	DataPathAddr  string `json:"DataPathAddr,omitempty"`
}

// ClusterJoinResponse says which cluster the host is in now.
type ClusterJoinResponse struct {
	NodeID    string `json:"NodeID"`
	NodeName  string `json:"NodeName"`
	ClusterID string `json:"ClusterID"`
	Nodes     int    `json:"Nodes"`
}

// ClusterToken is what a host needs to join.
type ClusterToken struct {
	Token       string    `json:"Token"`
	Expires     time.Time `json:"Expires"`
	JoinCommand string    `json:"JoinCommand,omitempty"` // complete, to be pasted on another host
}

// ClusterStatus is the body of GET /cluster/status.
type ClusterStatus struct {
	ClusterID string `json:"ClusterID"`
	Epoch     string `json:"Epoch"`
	State     string `json:"State"` // "single" (no other host can join yet) or "cluster"
	Self      string `json:"Self"`  // node ID
	Leader    string `json:"Leader,omitempty"`
	Store     string `json:"Store,omitempty"` // address of the external store that decides; empty: the hosts do
	// LastContact is when this host heard another one lead last; zero: not since its daemon started.
	LastContact time.Time           `json:"LastContact,omitzero"`
	Nodes       []ClusterNodeStatus `json:"Nodes"`
	Summary     []string            `json:"Summary"` // plain sentences: who votes, what happens if this host dies now
}

// ClusterNodeStatus is one row of ClusterStatus.
type ClusterNodeStatus struct {
	ID           string `json:"ID"`
	Name         string `json:"Name"`
	Addr         string `json:"Addr,omitempty"`
	DataPathAddr string `json:"DataPathAddr,omitempty"`
	Role         string `json:"Role"`   // voter or learner; etcd, consul or zk client, where that store decides
	Status       string `json:"Status"` // Ready, Down
	Leader       bool   `json:"Leader,omitempty"`
	Endpoints    int    `json:"Endpoints"`
	// Behind is by how many entries of the cluster's log its replica is; absent: it was not told.
	Behind  *uint64 `json:"Behind,omitempty"`
	Version string  `json:"Version,omitempty"`
}

// ClusterRecoverRequest is the body of POST /cluster/recover.
type ClusterRecoverRequest struct {
	DryRun bool `json:"DryRun,omitempty"` // only say what it would mean, or why it is refused
}

// ClusterRecoverResponse says what a takeover means, and in which epoch the cluster is.
type ClusterRecoverResponse struct {
	NodeID  string   `json:"NodeID,omitempty"` // empty: it was a dry run
	Epoch   string   `json:"Epoch"`
	Summary []string `json:"Summary"`
}

// ClusterRestoreRequest is the query of POST /cluster/restore, whose body is what GET /cluster/backup gave. Addresses that
// are not given are those in the backup, if this host has them.
type ClusterRestoreRequest struct {
	AdvertiseAddr string
	DataPathAddr  string
}

// ClusterRestoreResponse says who this host is now.
type ClusterRestoreResponse struct {
	NodeID    string    `json:"NodeID"`
	NodeName  string    `json:"NodeName"`
	ClusterID string    `json:"ClusterID"`
	Epoch     string    `json:"Epoch"`
	Made      time.Time `json:"Made"`    // the backup
	Missing   []string  `json:"Missing"` // names of the other nodes in it
}

// ClusterRotation is the body of GET /cluster/ca.
type ClusterRotation struct {
	UnderWay bool     `json:"UnderWay"` // the certificate authority or the gossip key is being replaced
	Waiting  []string `json:"Waiting"`  // names of live nodes that have not yet done what all wait for
}

// ClusterFindRequest is the body of POST /cluster/find.
type ClusterFindRequest struct {
	Node string `json:"Node"` // name or ID
	Addr string `json:"Addr"` // where it is, with or without a port
}

// ClusterRejoinRequest is the body of POST /cluster/rejoin.
type ClusterRejoinRequest struct {
	Remote string `json:"Remote,omitempty"` // name or ID of a node of the other side; empty: there is only one
}
