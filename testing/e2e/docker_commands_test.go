package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// dockerStep is one of the docker CLI's commands, as TestDockerCommands runs it and what it must say; or else the test that
// drives it.
type dockerStep struct {
	command string // noun and verb
	args    string // what follows, split at spaces; TMP stands for a folder
	input   string
	code    int
	want    string // pattern of both streams
	test    string // that drives the command, or drives it further
	note    string // for people, where "works" and "refused" are not the truth
}

// dockerSteps are all of them, in an order in which each finds what it needs. Commands with a code but 0 are refused, each
// with a sentence that names what it asks for.
func dockerSteps() []dockerStep {
	const (
		swarm  = "TestSwarmCommands"
		builds = "works where a BuildKit daemon is reachable, else refused with a sentence that says how to get one"
		chosen = "refused: the cluster itself chooses who decides"
	)
	return []dockerStep{
		{command: "version", want: `(?s)Server: minictl.*API version: +1\.51 \(minimum version 1\.24\)`},
		{command: "system info", want: `(?s)Server Version: .*Storage Driver: overlayfs`},
		{command: "login", test: "TestPushAndLogin"},
		{command: "logout", test: "TestPushAndLogin"},
		{command: "search", args: "busybox", code: 1, want: `searching a registry is not supported`},

		{command: "image ls", args: "-q", want: `^[0-9a-f]{12}\n[0-9a-f]{12}\n$`, test: "TestSaveAndHistory"},
		{command: "image inspect", args: "-f {{.RepoTags}} busybox", want: `^\[busybox:latest\]\n$`},
		{command: "image history", args: "--format {{.Size}} busybox", want: `MB\n`, test: "TestSaveAndHistory"},
		{command: "image tag", args: "busybox mine:1", test: "TestSaveAndHistory"},
		{command: "image save", args: "-o TMP/mine.tar mine:1", test: "TestSaveAndHistory"},
		{command: "image rm", args: "mine:1", want: `^Untagged: mine:1\n$`, test: "TestSaveAndHistory"},
		{command: "image load", args: "-i TMP/mine.tar", want: `^Loaded image: mine:1\n$`, test: "TestSaveAndHistory"},
		{command: "image import", args: "TMP/root.tar rooted:1", want: `^sha256:[0-9a-f]{64}\n$`, test: "TestDiffExportCommit"},
		{command: "image pull", test: "TestPushAndLogin"},
		{command: "image push", test: "TestPushAndLogin"},
		{command: "image build", args: "TMP/empty", code: 1, want: `building needs a BuildKit daemon`, test: "TestBuild", note: builds},
		{command: "image prune", args: "-f", want: `Total reclaimed space: 0B`, test: "TestPrune"},

		{command: "network create", args: "back", want: `^[0-9a-f]{64}\n$`, test: "TestConnect"},
		{command: "network ls", args: "--filter type=custom --format {{.Name}}", want: `^back\n$`},
		{command: "network inspect", args: "-f {{.Driver}} back", want: `^bridge\n$`},
		{command: "volume create", args: "data", want: `^data\n$`, test: "TestVolumes"},
		{command: "volume ls", args: "-q", want: `^data\n$`, test: "TestVolumes"},
		{command: "volume inspect", args: "-f {{.Driver}} data", want: `^local\n$`, test: "TestVolumes"},
		{command: "volume update", args: "data", code: 1, want: `can only update cluster volumes`},

		{command: "container create", args: "-i --name talk busybox cat", want: `^[0-9a-f]{64}\n$`},
		{command: "container start", args: "talk", want: `^talk\n$`},
		{command: "container attach", args: "talk", input: "said and heard\n", want: `^said and heard\n$`, test: "TestAttach"},
		{command: "container wait", args: "talk", want: `^0\n$`},
		{command: "container logs", args: "talk", want: `^said and heard\n$`, test: "TestStreams"},
		{command: "container run", args: "-d --name box -p 8080:80 -v data:/data --network back busybox sleep 600", want: `^[0-9a-f]{64}\n$`, test: "TestRun"},
		{command: "container exec", args: "box touch /made", want: `^$`, test: "TestStreams"},
		{command: "container diff", args: "box", want: `(?m)^A /made$`, test: "TestDiffExportCommit"},
		{command: "container cp", args: "box:/made TMP/made", test: "TestCopy"},
		{command: "container export", args: "-o TMP/box.tar box", test: "TestDiffExportCommit"},
		{command: "container commit", args: "box boxed:1", want: `^sha256:[0-9a-f]{64}\n$`, test: "TestDiffExportCommit"},
		{command: "container inspect", args: "-f {{.State.Status}} box", want: `^running\n$`},
		{command: "inspect", args: "--type network -f {{.Name}} back", want: `^back\n$`},
		{command: "container port", args: "box 80", want: `(?m)^0\.0\.0\.0:8080$`},
		{command: "container top", args: "box", want: `sleep 600`, test: "TestTopAndStats"},
		{command: "container stats", args: "--no-stream --format {{.Name}} box", want: `^box\n$`, test: "TestTopAndStats"},
		{command: "container update", args: "--pids-limit 50 box", want: `^box\n$`, test: "TestUpdate"},
		{command: "container pause", args: "box", want: `^box\n$`, test: "TestPause"},
		{command: "container unpause", args: "box", want: `^box\n$`, test: "TestPause"},
		{command: "container rename", args: "box case", want: `^$`, test: "TestPortsAgain"},
		{command: "container restart", args: "-t 0 case", want: `^case\n$`, test: "TestRestartPolicy"},
		{command: "container kill", args: "case", want: `^case\n$`, test: "TestRestartPolicy"},
		{command: "container ls", args: "-a --format {{.Names}}", want: `^case\ntalk\n$`, test: "TestRun"},
		{command: "network connect", args: "bridge talk", want: `^$`, test: "TestConnectStopped"},
		{command: "network disconnect", args: "bridge talk", want: `^$`, test: "TestConnectStopped"},
		{command: "container stop", args: "case", want: `^case\n$`, test: "TestRestartPolicy"},
		{command: "container rm", args: "case", want: `^case\n$`, test: "TestRun"},
		{command: "container prune", args: "-f", want: `(?s)Deleted Containers:\n[0-9a-f]{64}\n.*Total reclaimed space`, test: "TestPrune"},
		{command: "volume rm", args: "data", want: `^data\n$`, test: "TestVolumes"},
		{command: "volume prune", args: "-f", want: `Total reclaimed space: 0B`, test: "TestPrune"},
		{command: "network rm", args: "back", want: `^back\n$`, test: "TestConnect"},
		{command: "network prune", args: "-f", want: `^$`, test: "TestPrune"},
		{command: "system events", args: "--since 0 --until 0s --filter event=rename --format {{.Action}}", want: `^rename\n$`, test: "TestEventOrder"},
		{command: "system df", args: "--format {{.Type}}", want: `^Images\nContainers\nLocal Volumes\nBuild Cache\n$`, test: "TestPrune"},
		{command: "system prune", args: "-f", want: `Total reclaimed space: `, test: "TestPrune"},
		{command: "builder prune", args: "-f", want: `(?m)^Total.*0B$`},
		{command: "builder build", args: "TMP/empty", code: 1, want: `building needs a BuildKit daemon`, test: "TestBuild", note: builds},

		{command: "swarm init", test: swarm}, {command: "swarm join", test: swarm}, {command: "swarm join-token", test: swarm},
		{command: "swarm leave", test: swarm}, {command: "swarm update", test: swarm, note: "rotates tokens; settings are refused: a cluster has none"}, {command: "swarm unlock-key", test: swarm, note: "refused: locking the cluster is not supported"},
		{command: "swarm unlock", test: swarm, note: "says that the swarm is not locked: it never is"}, {command: "swarm ca", test: swarm},
		{command: "node ls", test: swarm}, {command: "node inspect", test: swarm}, {command: "node update", test: swarm}, {command: "node ps", test: swarm, note: "always empty: there are no services"},
		{command: "node promote", test: swarm, note: chosen}, {command: "node demote", test: swarm, note: chosen}, {command: "node rm", test: "TestNodeRemove"},
		{command: "service ls", code: 1, want: `services are not supported`},
		{command: "stack ls", code: 1, want: `services are not supported`},
		{command: "secret ls", code: 1, want: `secrets and configs are not supported`},
		{command: "config ls", code: 1, want: `secrets and configs are not supported`},
		{command: "plugin ls", code: 1, want: `plugins are not supported`},
	}
}

// TestDockerCommands runs every command of the stock docker CLI: none is left out, by the CLI's own help.
func TestDockerCommands(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	tmp := t.TempDir()
	if err := os.Mkdir(filepath.Join(tmp, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tmp, "empty", "Dockerfile"), []byte("FROM scratch\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, errOut, code := h.Run(context.Background(), "tar", "-C", tmp, "-cf", filepath.Join(tmp, "root.tar"), "empty"); code != 0 {
		t.Fatal(out, errOut)
	}
	tests, own := testNames(t), dockersOwn(t)
	var known []string
	for _, s := range dockerSteps() {
		known = append(known, s.command)
		if s.test != "" && !slices.Contains(tests, s.test) {
			t.Errorf("%s is driven by %s, which is no test", s.command, s.test)
		}
		if !slices.Contains(own, s.command) {
			continue // this docker is older than the command
		}
		if s.args == "" && s.want == "" {
			if s.test == "" {
				t.Errorf("nothing drives %s", s.command)
			}
			continue
		}
		args := append([]string{"env", "DOCKER_BUILDKIT=0", "docker", "-H", "unix://" + lab.Socket}, strings.Fields(s.command)...)
		args = append(args, strings.Fields(strings.ReplaceAll(s.args, "TMP", tmp))...)
		out, errOut, code := h.RunInput(context.Background(), s.input, args...)
		if code != s.code {
			t.Errorf("%s %s: code %d, want %d: %s%s", s.command, s.args, code, s.code, out, errOut)
		}
		wantMatch(t, s.command+" "+s.args, out+errOut, s.want)
	}
	for _, command := range own {
		if !slices.Contains(known, command) {
			t.Errorf("docker has a command %q that no test drives", command)
		}
	}
}

// dockersOwn are the commands that docker's help lists, by noun and verb. Those of the client alone are left out: they ask no
// daemon, or a registry, for what is in a file.
func dockersOwn(t *testing.T) []string {
	t.Helper()
	var out []string
	clientsOwn := []string{"context", "manifest", "trust", "checkpoint", "completion"}
	refusedWhole := []string{"service", "stack", "secret", "config", "plugin"} // one of each stands for all
	for _, noun := range helpCommands(t) {
		verbs := helpCommands(t, noun)
		switch {
		case slices.Contains(clientsOwn, noun):
		case slices.Contains(refusedWhole, noun):
			out = append(out, noun+" ls")
		case len(verbs) > 0:
			for _, v := range verbs {
				out = append(out, noun+" "+v)
			}
		default:
			out = append(out, spelledOut(noun))
		}
	}
	return out
}

// spelledOut is what a short command is short for.
func spelledOut(command string) string {
	switch command {
	case "ps":
		return "container ls"
	case "images":
		return "image ls"
	case "rmi":
		return "image rm"
	case "info", "events":
		return "system " + command
	case "version", "login", "logout", "search", "inspect":
		return command
	case "build", "history", "import", "load", "pull", "push", "save", "tag":
		return "image " + command
	}
	return "container " + command
}

// helpCommands reads the commands out of a help page; plugins have a star.
func helpCommands(t *testing.T, noun ...string) []string {
	t.Helper()
	cmd := exec.Command("docker", append(noun, "--help")...)
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+t.TempDir())
	page, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	var out []string
	listing := false
	row := regexp.MustCompile(`^  ([a-z][a-z-]*) `)
	for line := range strings.Lines(string(page)) {
		if strings.HasSuffix(strings.TrimSpace(line), ":") {
			listing = strings.HasSuffix(strings.TrimSpace(line), "Commands:")
		}
		if m := row.FindStringSubmatch(line); listing && m != nil {
			out = append(out, m[1])
		}
	}
	return out
}

// testNames are this package's tests.
func testNames(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range files {
		src, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(string(src), -1) {
			out = append(out, m[1])
		}
	}
	return out
}
