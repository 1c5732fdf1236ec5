package api

import "time"

// The bodies of /cluster/*, the part of the API that is ours. The command line imports them too.

// ClusterInitRequest is the body of POST /cluster/init. Addresses may be an IP address or an interface's name; empty
// means the address that routes to the outside.
type ClusterInitRequest struct {
	AdvertiseAddr string `json:"AdvertiseAddr,omitempty"`
	DataPathAddr  string `json:"DataPathAddr,omitempty"` // default: AdvertiseAddr
	DataPathPort  uint16 `json:"DataPathPort,omitempty"` // UDP; default 4789
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
	ClusterID string              `json:"ClusterID"`
	Epoch     string              `json:"Epoch"`
	State     string              `json:"State"` // "single" (no other host can join yet) or "cluster"
	Self      string              `json:"Self"`  // node ID
	Leader    string              `json:"Leader,omitempty"`
	Store     string              `json:"Store,omitempty"` // address of the external store that decides; empty: the hosts do
	Nodes     []ClusterNodeStatus `json:"Nodes"`
	Summary   []string            `json:"Summary"` // plain sentences: who votes, what happens if this host dies now
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
	Version      string `json:"Version,omitempty"`
}
