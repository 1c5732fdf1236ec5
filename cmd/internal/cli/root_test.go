package cli_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli"
	"github.com/minictl/minictl/cmd/internal/cli/clitest"
	"github.com/minictl/minictl/cmd/internal/cli/inspect"
)

func tree(t *testing.T) *cobra.Command {
	t.Helper()
	return cli.New(cli.Streams{In: io.NopCloser(strings.NewReader("")), Out: io.Discard, Err: io.Discard},
		&cobra.Command{Use: "daemon", Short: "x", Example: "x", Run: func(*cobra.Command, []string) {}})
}

func walk(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, sub := range cmd.Commands() {
		walk(sub, visit)
	}
}

// Every command explains itself, with an example that names a command that is there.
func TestEveryCommandHasHelp(t *testing.T) {
	root := tree(t)
	walk(root, func(cmd *cobra.Command) {
		if cmd.Short == "" || cmd.Example == "" {
			t.Errorf("%s: short %q, example %q", cmd.CommandPath(), cmd.Short, cmd.Example)
		}
		for line := range strings.Lines(cmd.Example) {
			_, after, ok := strings.Cut(line, "minictl ")
			if !ok {
				continue
			}
			if found, _, err := root.Find(strings.Fields(after)); err != nil || found == root {
				t.Errorf("%s: the example %q is no command", cmd.CommandPath(), strings.TrimSpace(line))
			}
		}
	})
}

func TestHelp(t *testing.T) {
	d := clitest.Start(t)
	for _, args := range []string{"--help", "help", "run --help", "network", "network --help", "help exec", "cluster init --help"} {
		r := clitest.Run(t, d, strings.Fields(args)...)
		if r.Code != 0 || !strings.Contains(r.Out, "Usage:  minictl") || !strings.Contains(r.Out, "Examples:\n  minictl") || r.Err != "" {
			t.Errorf("%s: %+v", args, r)
		}
	}
	if r := clitest.Run(t, d, "--version"); r.Out != "minictl version dev\n" {
		t.Errorf("got %+v", r)
	}
	if got := d.Requests(); len(got) > 0 {
		t.Errorf("help asked the daemon: %q", got)
	}
}

func TestMistakesAreOneLine(t *testing.T) {
	d := clitest.Start(t)
	for _, c := range []struct {
		args, err string
		code      int
	}{
		{"rnu busybox", `unknown command "rnu": did you mean 'minictl dns' or 'minictl rm' or 'minictl rmi' or 'minictl run'?`, 1},
		{"network creat x", `unknown command "network creat": did you mean 'minictl network create'?`, 1},
		{"xyzzy", `unknown command "xyzzy": see 'minictl --help'`, 1},
		{"run --nmae x busybox", `run: unknown flag: --nmae: did you mean '--name'? see 'minictl run --help'`, 125},
		{"ps --quite", `ps: unknown flag: --quite: did you mean '--quiet'? see 'minictl ps --help'`, 125},
		{"ps -Z", `ps: unknown shorthand flag: 'Z' in -Z: see 'minictl ps --help'`, 125},
		{"exec web", `exec needs at least 2 arguments, got 1: usage: minictl exec [OPTIONS] CONTAINER COMMAND [ARG...]; see 'minictl exec --help'`, 1},
		{"network create", `network create needs exactly 1 argument, got 0: usage: minictl network create [OPTIONS] NETWORK; see 'minictl network create --help'`, 1},
		{"network create --bad x", `network create: unknown flag: --bad: see 'minictl network create --help'`, 125},
		{"--bad", `minictl: unknown flag: --bad: see 'minictl --help'`, 125},
		{"cluster init --data-path-port 99999", `cluster init: invalid argument "99999" for "--data-path-port" flag: value out of range: see 'minictl cluster init --help'`, 125},
	} {
		r := clitest.Run(t, d, strings.Fields(c.args)...)
		if r.Code != c.code || r.Err != "minictl: "+c.err+"\n" || r.Out != "" {
			t.Errorf("%s: got %+v\nwant %d %s", c.args, r, c.code, c.err)
		}
	}
}

func TestNoDaemon(t *testing.T) {
	host := "unix://" + filepath.Join(t.TempDir(), "none.sock")
	d := &clitest.Daemon{Host: host}
	want := "minictl: cannot reach the minictl daemon at " + host + ": is it running? start it with \"minictl daemon\"\n"
	for _, args := range []string{"ps", "run busybox", "network ls", "cluster status", "exec a b", "load", "images", "node ls", "info"} {
		r := clitest.Run(t, d, strings.Fields(args)...)
		if r.Code == 0 || r.Err != want {
			t.Errorf("%s: %+v", args, r)
		}
	}
	// A socket nobody listens on any more is the same to a user.
	stale := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(stale, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := clitest.Run(t, &clitest.Daemon{Host: "unix://" + stale}, "ps"); !strings.Contains(r.Err, "is it running?") {
		t.Errorf("stale: %+v", r)
	}
	r := clitest.Run(t, d, "version")
	if r.Code != 1 || !strings.Contains(r.Out, "Client:\n Version:") || r.Err != want {
		t.Errorf("version: %+v", r)
	}
	if r := clitest.Run(t, &clitest.Daemon{Host: "nonsense"}, "ps"); r.Code != 1 || !strings.Contains(r.Err, "want unix:///PATH, tcp://HOST:PORT or ssh://USER@HOST") {
		t.Errorf("bad host: %+v", r)
	}
}

// The daemon's own commands reach no daemon: what they cannot reach is somebody else.
func TestDaemonsOwnErrors(t *testing.T) {
	var errs bytes.Buffer
	witness := &cobra.Command{Use: "witness", RunE: func(cmd *cobra.Command, _ []string) error {
		dial := &net.OpError{Op: "dial", Net: "tcp", Err: syscall.EHOSTUNREACH}
		return fmt.Errorf("join cluster: no member answers at 192.0.2.9: %w: %w", dial, errdefs.ErrUnavailable)
	}}
	code := cli.Main(t.Context(), []string{"witness"}, cli.Streams{In: io.NopCloser(strings.NewReader("")), Out: io.Discard, Err: &errs}, witness)
	if want := "minictl: join cluster: no member answers at 192.0.2.9: dial tcp: no route to host\n"; code != 1 || errs.String() != want {
		t.Errorf("code %d, %q, want %q", code, errs.String(), want)
	}
}

// MINICTL_HOST is read, DOCKER_HOST is not: it means another engine.
func TestHostFromEnvironment(t *testing.T) {
	d := listings(t)
	t.Setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
	t.Setenv("MINICTL_HOST", d.Host)
	var out, errs bytes.Buffer
	code := cli.Main(context.Background(), []string{"ps", "-q"},
		cli.Streams{In: io.NopCloser(strings.NewReader("")), Out: &out, Err: &errs})
	if code != 0 || out.String() != "0123456789ab\n" {
		t.Errorf("code %d, out %q, err %q", code, out.String(), errs.String())
	}
}

func TestCompletion(t *testing.T) {
	d := listings(t)
	d.Handle("GET /nodes", clitest.JSON(200, `[{"ID":"n1","Description":{"Hostname":"host1"}}]`))
	for _, c := range []struct{ args, want string }{
		{"exec bb", "bbox1\n:4\n"},
		{"network rm ov", "ov_net1\n:4\n"},
		{"run --network o", "ov_net1\n:4\n"},
		{"run busy", "busybox:latest\n:4\n"},
		{"network connect ov_net1 b", "bbox1\n:4\n"},
		{"node inspect s", "self\n:4\n"},
		{"network create -d ov", ":4\n"},
		{"volume rm data1", "data10\n:4\n"},
		{"volume inspect data10 data", "data2\n:4\n"},
		{"run -v data1", "data10\n:6\n"},
		{"run -v data1:", ":4\n"},
		{"cp bb", "bbox1:\n:6\n"},
		{"cp bbox1:/etc/hosts .", ":0\n"},
		{"rm bb", "bbox1\n:4\n"},
		{"logs b", "bbox1\n:4\n"},
		{"rmi busy", "busybox:latest\n:4\n"},
		{"container stop b", "bbox1\n:4\n"},
		{"context use d", "default\n:4\n"},
		{"completion z", "zsh\n:4\n"},
	} {
		r := clitest.Run(t, d, append([]string{"__complete"}, strings.Fields(c.args)...)...)
		if r.Code != 0 || !strings.HasSuffix(r.Out, c.want) {
			t.Errorf("%s: %q, want %q", c.args, r.Out, c.want)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		r := clitest.Run(t, d, "completion", shell)
		if r.Code != 0 || len(r.Out) < 1000 {
			t.Errorf("completion %s: code %d, %d bytes", shell, r.Code, len(r.Out))
		}
		// The shell itself, where there is one, finds no fault with it.
		if path, err := exec.LookPath(shell); err == nil {
			check := exec.Command(path, "-n")
			check.Stdin = strings.NewReader(r.Out)
			if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("%s -n: %v: %s", shell, err, out)
			}
		}
	}
	if r := clitest.Run(t, d, "completion", "csh"); r.Code != 1 || r.Err != "minictl: there is no completion for \"csh\": want bash, zsh or fish\n" {
		t.Errorf("%+v", r)
	}
}

// What a user of bash sees after the tab key: names that are there now, and files where they may stand.
func TestBashCompletes(t *testing.T) {
	d := listings(t)
	bin := programs(t)
	t.Setenv("MINICTL_HOST", d.Host)
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	// bash-completion's own function cuts the line into words; the lines here need no more than the shell's.
	const press = `source <(minictl completion bash)
_get_comp_words_by_ref() { cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=("${COMP_WORDS[@]}") cword=$COMP_CWORD; }
complete -p minictl >/dev/null || exit 1
COMP_LINE="$*" COMP_POINT=${#COMP_LINE} COMP_WORDS=("$@") COMP_CWORD=$(($#-1)) COMP_TYPE=9
__start_minictl
printf '%s\n' "${COMPREPLY[@]%% *}"`
	for _, c := range []struct {
		line string
		want []string
	}{
		{"minictl stop b", []string{"bbox1"}},
		{"minictl network rm ov", []string{"ov_net1"}},
		{"minictl volume in", []string{"inspect"}},
		{"minictl run --netw", []string{"--network", "--network-alias"}},
		{"minictl context us", []string{"use"}},
	} {
		out, err := exec.Command("bash", append([]string{"-c", press, "bash"}, strings.Fields(c.line)...)...).Output() // compopt complains on stderr: no key was pressed
		got := strings.Fields(string(out))
		for _, w := range c.want {
			if err != nil || !slices.Contains(got, w) {
				t.Errorf("%s: %q, %v, want %q", c.line, out, err, w)
			}
		}
		if len(got) > len(c.want) {
			t.Errorf("%s: %q, want %q", c.line, got, c.want)
		}
	}
}

func TestDebugPrintsRequests(t *testing.T) {
	d := listings(t)
	r := clitest.Run(t, d, "--debug", "ps", "-q")
	if r.Code != 0 || !strings.Contains(r.Err, "debug: GET /v1.51/containers/json") {
		t.Errorf("got %+v", r)
	}
}

func BenchmarkStartUp(b *testing.B) {
	for b.Loop() {
		cli.New(cli.Streams{In: io.NopCloser(strings.NewReader("")), Out: io.Discard, Err: io.Discard})
	}
}

// The template that a command's help shows works on what that command has.
func TestHelpsTemplates(t *testing.T) {
	root := tree(t)
	for path, object := range map[string]any{
		"node inspect": swarm.Node{}, "info": system.Info{}, "events": events.Message{}, "volume inspect": volume.Volume{},
	} {
		cmd, _, err := root.Find(strings.Fields(path))
		if err != nil {
			t.Fatal(err)
		}
		_, after, _ := strings.Cut(cmd.Flags().Lookup("format").Usage, "such as '")
		if err := inspect.Print(io.Discard, object, strings.TrimSuffix(after, "'")); err != nil {
			t.Errorf("%s: %s: %v", path, after, err)
		}
	}
}
