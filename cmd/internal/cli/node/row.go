package node

import (
	"strings"

	"github.com/docker/cli/cli/command/formatter"

	"github.com/minictl/minictl/cmd/internal/api"
)

const defaultTable = "table {{.ID}}{{if .Self}} *{{else}}  {{end}}\t{{.Hostname}}\t{{.Status}}\t{{.Availability}}" +
	"\t{{.Role}}\t{{.Address}}\t{{.EngineVersion}}"

func listFormat(format string, quiet bool) formatter.Format {
	switch {
	case quiet && (format == "" || format == formatter.TableFormatKey):
		return formatter.DefaultQuietFormat
	case format == "" || format == formatter.TableFormatKey:
		return defaultTable
	}
	return formatter.Format(format)
}

func header() *row {
	return &row{HeaderContext: formatter.HeaderContext{Header: formatter.SubHeaderContext{
		"ID": "ID", "Self": "", "Hostname": "HOSTNAME", "Status": "STATUS", "Availability": "AVAILABILITY",
		"Role": "ROLE", "ManagerStatus": "MANAGER STATUS", "Address": "ADDRESS", "DataPathAddress": "DATA PATH",
		"Endpoints": "ENDPOINTS", "EngineVersion": "VERSION",
	}}}
}

// row is one node as templates see it; the methods are the fields' names, docker's where docker has them.
type row struct {
	formatter.HeaderContext
	n    api.ClusterNodeStatus
	self bool
}

// MarshalJSON serves --format json.
func (r *row) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(r) }

// ID is the node's whole ID.
func (r *row) ID() string { return r.n.ID }

// Self says whether it is the host we talk to.
func (r *row) Self() bool { return r.self }

// Hostname is the node's name.
func (r *row) Hostname() string { return r.n.Name }

// Status is Ready or Down.
func (r *row) Status() string { return r.n.Status }

// Availability is docker's column; every node here takes containers, but witnesses.
func (r *row) Availability() string {
	if strings.HasPrefix(r.n.Role, "witness") {
		return "Drain"
	}
	return "Active"
}

// Role is voter or learner; the leader is marked.
func (r *row) Role() string {
	if r.n.Leader {
		return r.n.Role + " (leader)"
	}
	return r.n.Role
}

// ManagerStatus is docker's word for the same: Leader, Reachable, or empty for one that does not vote.
func (r *row) ManagerStatus() string {
	switch {
	case r.n.Leader:
		return "Leader"
	case r.n.Role != "voter":
		return ""
	case r.n.Status == "Ready":
		return "Reachable"
	}
	return "Unreachable"
}

// Address is where the node's control port answers.
func (r *row) Address() string { return r.n.Addr }

// DataPathAddress is where the containers' traffic goes.
func (r *row) DataPathAddress() string { return r.n.DataPathAddr }

// Endpoints counts the node's endpoints on networks that all hosts share.
func (r *row) Endpoints() int { return r.n.Endpoints }

// EngineVersion is the daemon's version.
func (r *row) EngineVersion() string { return r.n.Version }
