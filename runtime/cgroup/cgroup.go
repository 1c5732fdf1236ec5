// Package cgroup reads what the kernel counts for one cgroup, in version 1's and version 2's files. The files are
// described in the kernel's admin-guide/cgroup-v1 and admin-guide/cgroup-v2.rst.
package cgroup

import (
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// userHz is the unit of version 1's cpuacct.stat, in ticks per second: fixed towards programs (time(7)).
const userHz = 100

// Stats is what one cgroup has used. Times are in nanoseconds, sizes in bytes.
type Stats struct {
	V2      bool
	CPU     CPU
	Memory  Memory
	Pids    Pids
	IOBytes []IO
	IOCount []IO
}

// CPU is processor time.
type CPU struct {
	Total, User, Kernel          uint64
	PerCPU                       []uint64 // version 1 only
	Periods, Throttled, Withheld uint64   // of the quota: periods, those that ran out, and the time withheld
}

// Memory is the memory controller's. Limit is the largest number when there is none.
type Memory struct {
	Usage, Peak, Limit, Failures uint64
	Detail                       map[string]uint64 // memory.stat
}

// Pids counts processes and threads. Limit is 0 when there is none.
type Pids struct{ Current, Limit uint64 }

// IO is one block device's traffic.
type IO struct {
	Major, Minor uint64
	Op           string // read, write …
	Value        uint64
}

// Read reads the cgroup at name, a path below each hierarchy's root. root is /sys/fs/cgroup. It fails with
// [fs.ErrNotExist] when there is no such cgroup; a controller or file that the kernel lacks counts as zero.
func Read(root fs.FS, name string) (Stats, error) {
	name = strings.Trim(name, "/")
	if _, err := fs.Stat(root, "cgroup.controllers"); err == nil {
		if _, err := fs.Stat(root, name); err != nil {
			return Stats{}, fmt.Errorf("read cgroup: %w", err)
		}
		return readV2(dir{root, name}), nil
	}
	in := func(controller string) dir { return dir{root, path.Join(controller, name)} }
	if _, err := fs.Stat(root, in("memory").path); err != nil {
		return Stats{}, fmt.Errorf("read cgroup: %w", err)
	}
	return readV1(in), nil
}

func readV1(in func(controller string) dir) Stats {
	var s Stats
	acct, cpu, mem := in("cpuacct"), in("cpu"), in("memory")
	s.CPU.Total = acct.number("cpuacct.usage")
	for _, f := range strings.Fields(acct.text("cpuacct.usage_percpu")) {
		s.CPU.PerCPU = append(s.CPU.PerCPU, number(f))
	}
	ticks := acct.table("cpuacct.stat")
	s.CPU.User, s.CPU.Kernel = ticks["user"]*(1e9/userHz), ticks["system"]*(1e9/userHz)
	quota := cpu.table("cpu.stat")
	s.CPU.Periods, s.CPU.Throttled, s.CPU.Withheld = quota["nr_periods"], quota["nr_throttled"], quota["throttled_time"]
	s.Memory = Memory{
		Usage: mem.number("memory.usage_in_bytes"), Peak: mem.number("memory.max_usage_in_bytes"),
		Limit: mem.number("memory.limit_in_bytes"), Failures: mem.number("memory.failcnt"), Detail: mem.table("memory.stat"),
	}
	s.Pids = readPids(in("pids"))
	s.IOBytes = ioV1(in("blkio").text("blkio.throttle.io_service_bytes_recursive"))
	s.IOCount = ioV1(in("blkio").text("blkio.throttle.io_serviced_recursive"))
	return s
}

func readV2(d dir) Stats {
	cpu, mem := d.table("cpu.stat"), d
	s := Stats{V2: true, CPU: CPU{
		Total: cpu["usage_usec"] * 1000, User: cpu["user_usec"] * 1000, Kernel: cpu["system_usec"] * 1000,
		Periods: cpu["nr_periods"], Throttled: cpu["nr_throttled"], Withheld: cpu["throttled_usec"] * 1000,
	}}
	s.Memory = Memory{
		Usage: mem.number("memory.current"), Peak: mem.number("memory.peak"), Limit: mem.number("memory.max"),
		Failures: mem.table("memory.events")["oom"], Detail: mem.table("memory.stat"),
	}
	s.Pids = readPids(d)
	s.IOBytes, s.IOCount = ioV2(d.text("io.stat"))
	return s
}

func readPids(d dir) Pids {
	p := Pids{Current: d.number("pids.current")}
	if text := strings.TrimSpace(d.text("pids.max")); text != "max" {
		p.Limit = number(text)
	}
	return p
}

// ioV1 reads lines such as "8:0 Read 4096"; the last, "Total 4096", is none.
func ioV1(text string) []IO {
	var out []IO
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		if major, minor, ok := device(f[0]); ok {
			out = append(out, IO{major, minor, f[1], number(f[2])})
		}
	}
	return out
}

// ioV2 reads lines such as "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0".
func ioV2(text string) (bytes, count []IO) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		major, minor, ok := device(f[0])
		if !ok {
			continue
		}
		for _, kv := range f[1:] {
			k, v, _ := strings.Cut(kv, "=")
			switch k {
			case "rbytes":
				bytes = append(bytes, IO{major, minor, "read", number(v)})
			case "wbytes":
				bytes = append(bytes, IO{major, minor, "write", number(v)})
			case "rios":
				count = append(count, IO{major, minor, "read", number(v)})
			case "wios":
				count = append(count, IO{major, minor, "write", number(v)})
			}
		}
	}
	return bytes, count
}

func device(s string) (major, minor uint64, ok bool) {
	a, b, ok := strings.Cut(s, ":")
	if !ok {
		return 0, 0, false
	}
	major, err1 := strconv.ParseUint(a, 10, 32)
	minor, err2 := strconv.ParseUint(b, 10, 32)
	return major, minor, err1 == nil && err2 == nil
}

// dir is one cgroup's folder.
type dir struct {
	root fs.FS
	path string
}

func (d dir) text(file string) string {
	b, err := fs.ReadFile(d.root, path.Join(d.path, file))
	if err != nil {
		return "" // the kernel has no such file: nothing is counted
	}
	return string(b)
}

func (d dir) number(file string) uint64 { return number(d.text(file)) }

// table reads lines of a name and a number.
func (d dir) table(file string) map[string]uint64 {
	out := map[string]uint64{}
	for line := range strings.Lines(d.text(file)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			out[k] = number(v)
		}
	}
	return out
}

// number reads a count; "max" is the largest one.
func number(s string) uint64 {
	if s = strings.TrimSpace(s); s == "max" {
		return 1<<64 - 1
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}
