package cgroup_test

import (
	"errors"
	"io/fs"
	"math"
	"reflect"
	"testing"
	"testing/fstest"

	"github.com/minictl/minictl/runtime/cgroup"
)

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

func TestReadV1(t *testing.T) {
	got, err := cgroup.Read(fstest.MapFS{
		"cpuacct/m/c/cpuacct.usage":                           file("3000000000\n"),
		"cpuacct/m/c/cpuacct.usage_percpu":                    file("1000000000 2000000000 \n"),
		"cpuacct/m/c/cpuacct.stat":                            file("user 200\nsystem 100\n"),
		"cpu/m/c/cpu.stat":                                    file("nr_periods 10\nnr_throttled 4\nthrottled_time 500\n"),
		"memory/m/c/memory.usage_in_bytes":                    file("1048576\n"),
		"memory/m/c/memory.max_usage_in_bytes":                file("2097152\n"),
		"memory/m/c/memory.limit_in_bytes":                    file("33554432\n"),
		"memory/m/c/memory.failcnt":                           file("3\n"),
		"memory/m/c/memory.stat":                              file("cache 4096\ntotal_inactive_file 8192\n"),
		"pids/m/c/pids.current":                               file("2\n"),
		"pids/m/c/pids.max":                                   file("max\n"),
		"blkio/m/c/blkio.throttle.io_service_bytes_recursive": file("8:0 Read 4096\n8:0 Write 0\nTotal 4096\n"),
		"blkio/m/c/blkio.throttle.io_serviced_recursive":      file("8:0 Read 1\nTotal 1\n"),
	}, "/m/c")
	if err != nil {
		t.Fatal(err)
	}
	want := cgroup.Stats{
		CPU: cgroup.CPU{Total: 3e9, User: 2e9, Kernel: 1e9, PerCPU: []uint64{1e9, 2e9}, Periods: 10, Throttled: 4, Withheld: 500},
		Memory: cgroup.Memory{Usage: 1 << 20, Peak: 2 << 20, Limit: 32 << 20, Failures: 3,
			Detail: map[string]uint64{"cache": 4096, "total_inactive_file": 8192}},
		Pids:    cgroup.Pids{Current: 2},
		IOBytes: []cgroup.IO{{Major: 8, Op: "Read", Value: 4096}, {Major: 8, Op: "Write"}},
		IOCount: []cgroup.IO{{Major: 8, Op: "Read", Value: 1}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestReadV2(t *testing.T) {
	got, err := cgroup.Read(fstest.MapFS{
		"cgroup.controllers": file("cpu memory pids io\n"),
		"m/c/cpu.stat":       file("usage_usec 3000\nuser_usec 2000\nsystem_usec 1000\nnr_periods 10\nnr_throttled 4\nthrottled_usec 5\n"),
		"m/c/memory.current": file("1048576\n"),
		"m/c/memory.peak":    file("2097152\n"),
		"m/c/memory.max":     file("max\n"),
		"m/c/memory.events":  file("low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\n"),
		"m/c/memory.stat":    file("anon 4096\ninactive_file 8192\n"),
		"m/c/pids.current":   file("2\n"),
		"m/c/pids.max":       file("64\n"),
		"m/c/io.stat":        file("8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n7:0 \n"),
	}, "/m/c")
	if err != nil {
		t.Fatal(err)
	}
	want := cgroup.Stats{
		V2:  true,
		CPU: cgroup.CPU{Total: 3e6, User: 2e6, Kernel: 1e6, Periods: 10, Throttled: 4, Withheld: 5000},
		Memory: cgroup.Memory{Usage: 1 << 20, Peak: 2 << 20, Limit: math.MaxUint64, Failures: 2,
			Detail: map[string]uint64{"anon": 4096, "inactive_file": 8192}},
		Pids:    cgroup.Pids{Current: 2, Limit: 64},
		IOBytes: []cgroup.IO{{Major: 8, Op: "read", Value: 4096}, {Major: 8, Op: "write"}},
		IOCount: []cgroup.IO{{Major: 8, Op: "read", Value: 1}, {Major: 8, Op: "write"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestReadAbsent(t *testing.T) {
	for _, root := range []fstest.MapFS{{"cgroup.controllers": file("")}, {"memory/x/memory.stat": file("")}} {
		if _, err := cgroup.Read(root, "/m/c"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v: %v, want not exist", root, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add("8:0 rbytes=1 wios=x\n8: \n:\n", "nr_periods -1\nx\n", "max")
	f.Fuzz(func(t *testing.T, io, table, number string) {
		for _, root := range []fstest.MapFS{
			{"cgroup.controllers": file(""), "c/io.stat": file(io), "c/cpu.stat": file(table), "c/memory.current": file(number), "c/pids.max": file(number)},
			{"blkio/c/blkio.throttle.io_serviced_recursive": file(io), "cpu/c/cpu.stat": file(table), "memory/c/memory.limit_in_bytes": file(number)},
		} {
			if _, err := cgroup.Read(root, "c"); err != nil {
				t.Fatal(err)
			}
		}
	})
}
