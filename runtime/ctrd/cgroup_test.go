package ctrd

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

func TestParents(t *testing.T) {
	for path, want := range map[string][]string{
		"/minictl/abc":        {"/minictl"},
		"/a/b/c":              {"/a/b", "/a"},
		"/abc":                nil,
		"":                    nil,
		"relative/abc":        nil,
		"user.slice:mini:abc": nil,
	} {
		if got := parents(path); !slices.Equal(got, want) {
			t.Errorf("%q: got %v, want %v", path, got, want)
		}
	}
}

func TestOOMCount(t *testing.T) {
	for text, want := range map[string]bool{
		"oom_kill_disable 0\nunder_oom 0\noom_kill 2\n":   true,
		"oom_kill_disable 0\nunder_oom 0\noom_kill 0\n":   false,
		"low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\n":       true,
		"low 0\nhigh 0\nmax 9\noom 1\noom_group_kill 1\n": false,
		"": false,
	} {
		if got := oomCount([]byte(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// TestForeignParentStays: only what we made is removed, and nothing while a
// container is being started, here or by another daemon.
func TestForeignParentStays(t *testing.T) {
	h := newHost(t)
	roots, _ := filepath.Glob(filepath.Join(cgroupRoot, "pids"))
	if len(roots) == 0 {
		roots = []string{cgroupRoot}
	}
	foreign := filepath.Join(roots[0], h.Cgroup+"-foreign")
	ours := filepath.Join(roots[0], h.Cgroup)
	for _, d := range []string{foreign, ours} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Rmdir(d) })
	}
	var c cgroups
	c.using(h.Cgroup + "-foreign/x")()
	c.tidy(h.Cgroup+"-foreign/x", h.Cgroup)
	if !exists(foreign) {
		t.Error("a parent that existed before was removed")
	}
	done := c.using(h.Cgroup + "/x")
	c.tidy(h.Cgroup+"/y", h.Cgroup)
	if !exists(ours) {
		t.Error("a parent was removed under a starting container")
	}
	done()
	c.tidy(h.Cgroup+"/y", h.Cgroup)
	if exists(ours) {
		t.Error("our empty parent stays")
	}
}
