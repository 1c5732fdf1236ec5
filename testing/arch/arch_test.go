package arch

import (
	"slices"
	"strings"
	"testing"
)

func TestTreeKeepsItsRules(t *testing.T) {
	files, err := Read("../..")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 20 {
		t.Fatalf("read only %d files: looking in the wrong place", len(files))
	}
	for _, bad := range Check(files) {
		t.Error(bad)
	}
}

// Every rule can fail, and says where.
func TestRulesCanFail(t *testing.T) {
	const doc = "// Package x does.\npackage x\n"
	imp := func(paths ...string) string {
		return doc + "import (\n_ \"" + strings.Join(paths, "\"\n_ \"") + "\"\n)\n"
	}
	for _, c := range []struct{ file, text, want string }{
		{"cluster/x/a.go", imp(Module + "/netdriver/ipam"), "imports netdriver/ipam: cluster knows nothing"},
		{"runtime/x/a.go", imp(Module + "/cluster"), "imports cluster: runtime knows nothing"},
		{"netdriver/x/a_test.go", imp(Module + "/dnsd"), "imports dnsd: netdriver knows nothing"},
		{"dnsd/a.go", imp(Module + "/cmd/internal/api"), "imports cmd/internal/api: dnsd knows nothing"},
		{"runtime/x/a.go", imp(Module + "/runtime/y"), ""},
		{"cmd/internal/daemon/a.go", imp(Module+"/runtime/ctrd", Module+"/cluster", Module+"/netdriver"), ""},
		{"runtime/x/a.go", imp(Module + "/testing/lab"), "imports testing/lab outside a test"},
		{"runtime/x/a_test.go", imp(Module + "/testing/lab"), ""},
		{"runtime/x/a.go", imp("github.com/containerd/containerd/v2/client"), "which only runtime/ctrd"},
		{"runtime/ctrd/a.go", imp("github.com/containerd/containerd/v2/client"), ""},
		{"runtime/ctrdx/a.go", imp("github.com/containerd/containerd/v2/client"), "which only"},
		{"cmd/minictl-shim/a.go", imp("github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task"), ""},
		{"netdriver/overlay/a.go", imp("github.com/vishvananda/netlink"), "which only netdriver/nl"},
		{"netdriver/overlay/a.go", imp("github.com/vishvananda/netlink/nl"), "which only netdriver/nl"},
		{"testing/x/a.go", imp("github.com/vishvananda/netns"), "which only netdriver/nl"},
		{"netdriver/nl/a.go", imp("github.com/vishvananda/netlink", "github.com/vishvananda/netns"), ""},
		{"cluster/a.go", imp("github.com/hashicorp/memberlist"), "which only cluster/gossip"},
		{"cluster/gossip/a.go", imp("github.com/hashicorp/memberlist"), ""},
		{"cluster/a.go", imp("github.com/hashicorp/raft"), "which only cluster/raft"},
		{"cluster/store/journal/a.go", imp("go.etcd.io/etcd/client/v3"), "which only cluster/store/etcd"},
		{"cluster/store/zk/a.go", imp("github.com/hashicorp/consul/api"), "which only cluster/store/consul"},
		{"cluster/store/etcd/a.go", imp("github.com/go-zookeeper/zk"), "which only cluster/store/zk"},
		{"cluster/store/etcd/a.go", imp("go.etcd.io/etcd/client/v3", "go.uber.org/zap"), ""},
		{"netdriver/x/a.go", imp("github.com/containernetworking/cni/libcni"), "which only netdriver/cni"},
		{"cmd/x/a.go", imp("github.com/miekg/dns"), "which only dnsd, testing"},
		{"testing/x/a.go", imp("github.com/miekg/dns"), ""},
		{"cmd/x/a.go", "package x\n", "no package doc"},
		{"cmd/x/a.go", "// X does.\npackage x\n", "no package doc"},
		{"cmd/x/a.go", "// Package main does.\npackage main\n", "no package doc"},
		{"cmd/x/a.go", "// Command x does.\npackage main\n", ""},
		{"cmd/x/a.go", "// x does.\npackage main\n", ""},
		{"cmd/x/a_test.go", "package x\n", ""},
		{"cmd/util/a.go", "// Package util does.\npackage util\n", `package name "util" says nothing`},
		{"cmd/helpers/a.go", doc, `package name "helpers" says nothing`},
		{"cmd/x/a.go", doc + "func init() {}\n", "has an init function"},
		{"cmd/x/a.go", doc + "type T int\nfunc (T) init() {}\n", ""},
		{"cmd/x/a_test.go", "package x\nimport \"time\"\nfunc f() { time.Sleep(1) }\n", "sleeps in a test"},
		{"cmd/x/a_test.go", "package x\nimport (\n\"testing/synctest\"\n\"time\"\n)\nfunc f() { time.Sleep(1) }\n", ""},
		{"cmd/x/a.go", doc + "import \"time\"\nfunc f() { time.Sleep(1) }\n", ""},
		{"cmd/x/a.go", doc + "// TO" + "DO: more\n", "mentions"},
		{"cmd/x/a.go", doc + "// todo el mundo\n", ""},
		{"cmd/x/a.go", doc + "const p = \"/wo" + "rk/x\"\n", "mentions"},
		{"cmd/x/a.go", doc + "// Copi" + "lot wrote this\n", "mentions"},
		{"cmd/x/a.go", "packag x\n", "does not parse"},
	} {
		got := Check([]File{{c.file, c.text}})
		switch {
		case c.want == "" && len(got) > 0:
			t.Errorf("%s, allowed:\n%s%q", c.file, c.text, got)
		case c.want != "" && !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, c.want) }):
			t.Errorf("%s, want %q:\n%s%q", c.file, c.want, c.text, got)
		}
	}
}
