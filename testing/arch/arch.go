// Package arch holds the tree to its own rules: who may import whom, documentation, names, what code must not contain.
// It parses the sources in process: a test that ran "go list" would be served from the test cache.
package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Module is the path every import of our own begins with.
const Module = "github.com/minictl/minictl"

// parts are the folders that never import each other, nor what is made of them; cmd/internal/daemon brings them together.
var parts = []string{"runtime", "netdriver", "dnsd", "cluster"}

// only says which folders may import a module. A module not listed is free.
var only = map[string][]string{
	"github.com/containerd/containerd/v2": {"runtime/ctrd", "runtime/shim", "cmd/minictl-shim"},
	"github.com/moby/buildkit":            {"runtime/ctrd/buildkit"},
	"github.com/vishvananda/netlink":      {"netdriver/nl"},
	"github.com/vishvananda/netns":        {"netdriver/nl"},
	"github.com/hashicorp/memberlist":     {"cluster/gossip"},
	"github.com/hashicorp/raft":           {"cluster/raft"},
	"github.com/miekg/dns":                {"dnsd", "testing"},
	"github.com/containernetworking/cni":  {"netdriver/cni"},
	"go.etcd.io/etcd":                     {"cluster/store/etcd"},
	"go.uber.org/zap":                     {"cluster/store/etcd"},
	"github.com/hashicorp/consul":         {"cluster/store/consul"},
	"github.com/go-zookeeper/zk":          {"cluster/store/zk"},
}

// vague are package names that say nothing about what is inside.
var vague = []string{"util", "utils", "common", "helper", "helpers", "types", "misc", "base", "shared", "lib"}

// words must not stand in code: unfinished work, and places that exist on one developer's machine only. Each is written
// in two halves, so that this file passes.
var words = []string{"TO" + "DO", "FIX" + "ME", "/wo" + "rk/", "/tmp/br" + "ief", "/fa" + "rm/", ".libr" + "ary/", "chat" + "gpt", "clau" + "de", "copi" + "lot", "anth" + "ropic", "open" + "ai"}

// File is one Go source, its path relative to the module's root with slashes.
type File struct {
	Path, Text string
}

// Read collects the Go sources below a module's root, without testdata, hidden folders and the root folder itself.
func Read(root string) ([]File, error) {
	var out []File
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && p != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin") {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(name) != ".go" || filepath.Dir(p) == root {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		out = append(out, File{filepath.ToSlash(rel), string(text)})
		return err
	})
	return out, err
}

// Check gives every violation as "path: what is wrong", sorted.
func Check(files []File) []string {
	var bad []string
	documented := map[string]bool{} // by folder; present for each folder that holds more than tests
	for _, f := range files {
		fset := token.NewFileSet()
		parsed, err := parser.ParseFile(fset, f.Path, f.Text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			bad = append(bad, fmt.Sprintf("%s: does not parse: %v", f.Path, err))
			continue
		}
		for _, w := range slices.Concat(imports(f.Path, parsed), code(f, parsed), mentions(f.Text)) {
			bad = append(bad, f.Path+": "+w)
		}
		if !isTest(f.Path) {
			dir := path.Dir(f.Path)
			documented[dir] = documented[dir] || hasDoc(dir, parsed)
		}
	}
	for dir, ok := range documented {
		if !ok {
			bad = append(bad, dir+": no package doc that begins with its name")
		}
	}
	slices.Sort(bad)
	return slices.Compact(bad)
}

func isTest(file string) bool { return strings.HasSuffix(file, "_test.go") }

// under tells whether a folder is one of, or below one of, the given ones.
func under(dir string, tops ...string) bool {
	return slices.ContainsFunc(tops, func(t string) bool { return dir == t || strings.HasPrefix(dir, t+"/") })
}

func imports(file string, f *ast.File) []string {
	var bad []string
	dir := path.Dir(file)
	for _, spec := range f.Imports {
		target, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // the parser accepted it, so it is quoted
		}
		for module, homes := range only {
			if under(target, module) && !under(dir, homes...) {
				bad = append(bad, fmt.Sprintf("imports %s, which only %s may", target, strings.Join(homes, ", ")))
			}
		}
		ours, ok := strings.CutPrefix(target, Module+"/")
		if !ok {
			continue
		}
		for _, p := range parts {
			others := slices.DeleteFunc(slices.Concat(parts, []string{"cmd"}), func(o string) bool { return o == p })
			if under(dir, p) && under(ours, others...) {
				bad = append(bad, fmt.Sprintf("imports %s: %s knows nothing of its neighbours; declare an interface and let cmd/internal/daemon adapt", ours, p))
			}
		}
		if under(ours, "testing") && !under(dir, "testing") && !isTest(file) {
			bad = append(bad, fmt.Sprintf("imports %s outside a test", ours))
		}
	}
	return bad
}

// code looks for what STYLE forbids in declarations and calls.
func code(file File, f *ast.File) []string {
	var bad []string
	// In a synctest bubble time is virtual, and sleeping costs nothing and proves something.
	bubble := slices.ContainsFunc(f.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"testing/synctest"` })
	for _, name := range []string{f.Name.Name, path.Base(path.Dir(file.Path))} {
		if slices.Contains(vague, strings.TrimSuffix(name, "_test")) {
			bad = append(bad, fmt.Sprintf("package name %q says nothing", name))
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Recv == nil && n.Name.Name == "init" {
				bad = append(bad, "has an init function: call it from main")
			}
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if ok && isTest(file.Path) && !bubble && x.Name == "time" && n.Sel.Name == "Sleep" {
				bad = append(bad, "sleeps in a test: wait for a condition")
			}
		}
		return true
	})
	return bad
}

func mentions(text string) []string {
	var bad []string
	lower := strings.ToLower(text)
	for _, w := range words {
		// Words in capitals mean something only in capitals: "todo" may be Spanish.
		if strings.ToUpper(w) == w && strings.Contains(text, w) || strings.ToLower(w) == w && strings.Contains(lower, w) {
			bad = append(bad, fmt.Sprintf("mentions %q", w))
		}
	}
	return bad
}

// hasDoc wants godoc's form, which tools print as it stands. A program's begins with "Command" or with its name.
func hasDoc(dir string, f *ast.File) bool {
	text := f.Doc.Text()
	if f.Name.Name == "main" {
		return strings.HasPrefix(text, "Command ") || strings.HasPrefix(text, path.Base(dir)+" ")
	}
	return strings.HasPrefix(text, "Package "+f.Name.Name+" ")
}
