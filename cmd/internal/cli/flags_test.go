package cli_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/docker/cli/cli/config"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// flagsGolden is every flag of every command of a stock docker client, as its help states it: a line a command, below it
// a line a flag with shorthand, type (none for a switch) and default. It is rewritten with -docker, as requests.golden is.
const flagsGolden = "testdata/flags.golden"

// absentCommands are docker's commands that are not here, and why.
var absentCommands = map[string]string{
	"builder":    "its cache is BuildKit's own",
	"checkpoint": "experimental in docker, needs CRIU", "manifest": "works on registries alone, no daemon's affair",
	"plugin": "no plugins", "trust": "signs images in a registry, no daemon's affair", "search": "asks Docker Hub only",
	"config": "swarm services", "secret": "swarm services", "service": "swarm services", "stack": "swarm services",
	"swarm": "minictl cluster", "node ps": "swarm services", "node promote": "minictl cluster decides by itself who votes",
	"node demote": "as promote", "volume update": "cluster volumes only",
	"buildx": "a plugin", "compose": "a plugin",
}

// otherFlags are docker's flags that differ here, and why: by "command --flag", or "--flag" for all commands.
var otherFlags = map[string]string{
	"--disable-content-trust": "image signing of a retired kind",
	"--log-level":             "this client has no log; --debug prints its requests",
	"--cpu-count":             "Windows", "--cpu-percent": "Windows", "--io-maxbandwidth": "Windows", "--io-maxiops": "Windows",
	"--kernel-memory":  "no kernel has it any more",
	"--use-api-socket": "experimental: gives the engine's socket and all credentials to the container",
	"--checkpoint":     "experimental in docker, needs CRIU", "--checkpoint-dir": "as --checkpoint",
	"--tree":             "experimental in docker",
	"history --platform": onePlatform, "image history --platform": onePlatform, "load --platform": onePlatform, "image load --platform": onePlatform,
	"save --platform": onePlatform, "image save --platform": onePlatform, "rmi --platform": onePlatform, "image rm --platform": onePlatform,
	"volume create --availability": clusterVolumes, "volume create --group": clusterVolumes, "volume create --limit-bytes": clusterVolumes,
	"volume create --required-bytes": clusterVolumes, "volume create --scope": clusterVolumes, "volume create --secret": clusterVolumes,
	"volume create --sharing": clusterVolumes, "volume create --topology-preferred": clusterVolumes,
	"volume create --topology-required": clusterVolumes, "volume create --type": clusterVolumes, "volume ls --cluster": clusterVolumes,
	"build --cgroup-parent": classicBuilder, "image build --cgroup-parent": classicBuilder,
	"build --cpu-period": classicBuilder, "image build --cpu-period": classicBuilder,
	"build --cpu-quota": classicBuilder, "image build --cpu-quota": classicBuilder,
	"build --cpu-shares": classicBuilder, "image build --cpu-shares": classicBuilder,
	"build --cpuset-cpus": classicBuilder, "image build --cpuset-cpus": classicBuilder,
	"build --cpuset-mems": classicBuilder, "image build --cpuset-mems": classicBuilder,
	"build --isolation": classicBuilder, "image build --isolation": classicBuilder,
	"build --memory": classicBuilder, "image build --memory": classicBuilder,
	"build --memory-swap": classicBuilder, "image build --memory-swap": classicBuilder,
	"build --security-opt": classicBuilder, "image build --security-opt": classicBuilder,
	"build --squash": classicBuilder, "image build --squash": classicBuilder,
	"node update --availability": "nodes are active as long as they are there", "node update --role": "minictl cluster decides by itself who votes",
	"node inspect --pretty": "swarm's fields mostly: minictl cluster status says how a node is",
}

const (
	classicBuilder = "docker's first builder had it, BuildKit has not"
	onePlatform    = "an image here has one platform"
	clusterVolumes = "swarm's volumes over a CSI plugin"
)

type flagLine struct{ name, short, kind, def string }

func (f flagLine) String() string {
	return fmt.Sprintf("  --%s %q %q %q", f.name, f.short, f.kind, f.def)
}

// Every flag of every command of docker's is here as well, with the same shorthand, kind and default.
func TestFlagsAreStockDockers(t *testing.T) {
	if *stock != "" {
		var b strings.Builder
		walkStock(t, &b, nil)
		if err := os.WriteFile(flagsGolden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(flagsGolden)
	if err != nil {
		t.Fatal(err)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_CERT_PATH", "")
	t.Setenv("DOCKER_DEFAULT_PLATFORM", "")
	config.SetDir(filepath.Join(home, ".docker"))
	root, used := tree(t), map[string]bool{}
	root.InitDefaultVersionFlag()
	var cmd *cobra.Command
	var name string
	commands := 0
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, " ") {
			name = strings.TrimSpace(line)
			if cmd = lookUp(root, name, used); cmd != nil {
				commands++
			}
			continue
		}
		if cmd != nil {
			compareFlag(t, cmd, home, name, line, used)
		}
	}
	if commands < 90 {
		t.Errorf("compared only %d commands", commands)
	}
	for what := range otherFlags {
		if !used[what] {
			t.Errorf("the exception %q is of no use any more", what)
		}
	}
	for what := range absentCommands {
		if c, rest, err := root.Find(strings.Fields(what)); err == nil && len(rest) == 0 && c != root {
			t.Errorf("%q is there: take it off the list of those that are not", what)
		}
	}
}

// lookUp finds docker's command among ours; nil when it is absent for a reason. An absent one without a reason is root,
// which has none of its flags.
func lookUp(root *cobra.Command, name string, used map[string]bool) *cobra.Command {
	for absent := range absentCommands {
		if name == absent || strings.HasPrefix(name, absent+" ") {
			used[absent] = true
			return nil
		}
	}
	cmd, rest, err := root.Find(strings.Fields(name))
	if err != nil || len(rest) > 0 {
		return &cobra.Command{Use: "absent"}
	}
	return cmd
}

func compareFlag(t *testing.T, cmd *cobra.Command, home, name, line string, used map[string]bool) {
	t.Helper()
	var want flagLine
	if _, err := fmt.Sscanf(strings.TrimSpace(line), "--%s %q %q %q", &want.name, &want.short, &want.kind, &want.def); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	for _, e := range []string{name + " --" + want.name, "--" + want.name} {
		if otherFlags[e] != "" {
			used[e] = true
			return
		}
	}
	f := cmd.Flags().Lookup(want.name)
	if f == nil {
		f = cmd.InheritedFlags().Lookup(want.name)
	}
	if f == nil {
		t.Errorf("%s: no --%s (%s)", name, want.name, cmd.Name())
		return
	}
	if got := ours(f, home); got.short != want.short || (got.kind == "") != (want.kind == "") || got.def != want.def {
		t.Errorf("%s:\n got %v\nwant %v", name, got, want)
	}
}

// ours reads a flag as its line in the help would be read.
func ours(f *pflag.Flag, home string) flagLine {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	fs.AddFlag(f)
	found := parseFlags(fs.FlagUsages())
	if len(found) != 1 {
		return flagLine{name: f.Name}
	}
	found[0].def = strings.ReplaceAll(found[0].def, home, "~")
	return found[0]
}

// walkStock writes the flags of docker's command at path and of all below it.
func walkStock(t *testing.T, b *strings.Builder, path []string) {
	t.Helper()
	out, err := exec.Command(*stock, append(slices.Clone(path), "--help")...).Output()
	if err != nil {
		t.Fatalf("docker %v: %v", path, err)
	}
	_, flags, _ := strings.Cut(string(out), "Options:\n")
	fmt.Fprintln(b, strings.Join(path, " "))
	for _, f := range parseFlags(flags) {
		if f.def = strings.ReplaceAll(f.def, os.Getenv("HOME"), "~"); f.name != "help" {
			fmt.Fprintln(b, f)
		}
	}
	inList := false
	for line := range strings.Lines(string(out)) {
		switch fields := strings.Fields(line); {
		case strings.HasSuffix(strings.TrimSpace(line), "Commands:"):
			inList = true
		case len(fields) == 0 || strings.HasSuffix(strings.TrimSpace(line), ":"):
			inList = false
		case inList:
			name := strings.TrimSuffix(fields[0], "*")
			if absentCommands[strings.Join(append(slices.Clone(path), name), " ")] == "" {
				walkStock(t, b, append(slices.Clone(path), name))
			}
		}
	}
}

var (
	flagStart   = regexp.MustCompile(`^ {2,6}(?:-(\w), )?--([\w-]+)(?: (\S+))?(?: {2,}(.*))?$`)
	flagDefault = regexp.MustCompile(`\(default ([^)]*)\)\s*$`)
)

// parseFlags reads the flags of a help text; lines that go on the one before are joined to it.
func parseFlags(text string) []flagLine {
	var entries []string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case flagStart.MatchString(line):
			entries = append(entries, line)
		case strings.TrimSpace(line) == "":
			if len(entries) > 0 {
				goto done
			}
		case len(entries) > 0:
			entries[len(entries)-1] += " " + strings.TrimSpace(line)
		}
	}
done:
	var out []flagLine
	for _, e := range entries {
		m := flagStart.FindStringSubmatch(e)
		f := flagLine{name: m[2], short: m[1], kind: m[3]}
		if d := flagDefault.FindStringSubmatch(m[4]); d != nil {
			f.def = strings.Trim(d[1], `"`)
		}
		out = append(out, f)
	}
	return out
}
