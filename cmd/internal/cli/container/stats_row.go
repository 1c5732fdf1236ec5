package container

import (
	"strconv"
	"strings"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
)

// statsTable has docker's columns.
const statsTable = "table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}"

// unknown is shown for what is not known (yet), as docker does.
const unknown = "--"

func statsHeader() *statsRow {
	return &statsRow{HeaderContext: formatter.HeaderContext{Header: formatter.SubHeaderContext{
		"Container": "CONTAINER", "Name": "NAME", "ID": "CONTAINER ID", "CPUPerc": "CPU %", "MemUsage": "MEM USAGE / LIMIT",
		"MemPerc": "MEM %", "NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS",
	}}}
}

// statsRow is one container as templates see it; the methods are docker's fields.
type statsRow struct {
	formatter.HeaderContext
	ref   string
	s     container.StatsResponse
	trunc bool
}

// MarshalJSON serves --format json.
func (r *statsRow) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(r) }

// Container is what the user called it.
func (r *statsRow) Container() string { return r.ref }

// Name is its name.
func (r *statsRow) Name() string {
	if r.s.Name == "" {
		return unknown
	}
	return strings.TrimPrefix(r.s.Name, "/")
}

// ID is its ID, short unless told otherwise.
func (r *statsRow) ID() string {
	if r.trunc {
		return formatter.TruncateID(r.s.ID)
	}
	return r.s.ID
}

// CPUPerc is the share of one processor that it used since the sample before: 200% are two whole ones.
func (r *statsRow) CPUPerc() string {
	now, before := r.s.CPUStats, r.s.PreCPUStats
	machine := float64(now.SystemUsage) - float64(before.SystemUsage)
	own := float64(now.CPUUsage.TotalUsage) - float64(before.CPUUsage.TotalUsage)
	if machine <= 0 || own <= 0 {
		return percent(0)
	}
	return percent(own / machine * float64(now.OnlineCPUs) * 100)
}

// memory leaves out cached files that the kernel would drop at once, which v1 and v2 name differently.
func (r *statsRow) memory() float64 {
	m := r.s.MemoryStats
	idle, v1 := m.Stats["total_inactive_file"]
	if !v1 {
		idle = m.Stats["inactive_file"]
	}
	if idle > m.Usage {
		idle = 0
	}
	return float64(m.Usage - idle)
}

// MemUsage is memory in use and its limit.
func (r *statsRow) MemUsage() string {
	return units.BytesSize(r.memory()) + " / " + units.BytesSize(float64(r.s.MemoryStats.Limit))
}

// MemPerc is the former's share of the latter.
func (r *statsRow) MemPerc() string {
	if r.s.MemoryStats.Limit == 0 {
		return percent(0)
	}
	return percent(r.memory() / float64(r.s.MemoryStats.Limit) * 100)
}

// NetIO is what all interfaces received and sent.
func (r *statsRow) NetIO() string {
	var in, out uint64
	for _, n := range r.s.Networks {
		in, out = in+n.RxBytes, out+n.TxBytes
	}
	return sizes(in, out)
}

// BlockIO is what was read from and written to block devices.
func (r *statsRow) BlockIO() string {
	var in, out uint64
	for _, io := range r.s.BlkioStats.IoServiceBytesRecursive {
		switch strings.ToLower(io.Op) {
		case "read":
			in += io.Value
		case "write":
			out += io.Value
		}
	}
	return sizes(in, out)
}

// PIDs counts processes and threads.
func (r *statsRow) PIDs() string { return strconv.FormatUint(r.s.PidsStats.Current, 10) }

func percent(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) + "%" }

func sizes(in, out uint64) string {
	return units.HumanSizeWithPrecision(float64(in), 3) + " / " + units.HumanSizeWithPrecision(float64(out), 3)
}
