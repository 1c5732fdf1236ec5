package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
)

// toy is an engine of one container at a time, made of fakes: what stock docker needs to believe in it. Its process
// echoes stdin until that ends, when it was asked for stdin; says "hello" first; and exits with 3.
type toy struct {
	fakes
	mu     sync.Mutex
	calls  []string
	image  bool // pulled
	config container.CreateRequest
	proc   *process
	exited chan struct{}
}

func (e *toy) note(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls = append(e.calls, fmt.Sprintf(format, args...))
}

// run is the container's process.
func (e *toy) run() {
	if p := e.proc; p != nil {
		_, _ = p.stdout.Write(frame(false, stdoutFrame, "hello\n"))
		if e.config.OpenStdin {
			p.echo()
		}
		_ = p.stdout.Close()
	}
	close(e.exited)
}

func newToy() *toy {
	e := &toy{exited: make(chan struct{})}
	e.c.create = func(name string, req container.CreateRequest) (container.CreateResponse, error) {
		e.note("create %s", name)
		if !e.image {
			return container.CreateResponse{}, fmt.Errorf("No such image: %s: %w", req.Image, errdefs.ErrNotFound)
		}
		e.config = req
		return container.CreateResponse{ID: strings.Repeat("c", 64)}, nil
	}
	e.c.attach = func(_ context.Context, _ string, o AttachOptions) (Stream, error) {
		e.note("attach %v", o.Stdin)
		e.proc = newProcess()
		return e.proc, nil
	}
	e.c.wait = func(ctx context.Context, _ string, c container.WaitCondition) (<-chan container.WaitResponse, error) {
		e.note("wait %s", c)
		ch := make(chan container.WaitResponse, 1)
		go func() {
			select {
			case <-e.exited:
				ch <- container.WaitResponse{StatusCode: 3}
			case <-ctx.Done():
			}
		}()
		return ch, nil
	}
	e.c.start = func(_ context.Context, ref string) error {
		e.note("start")
		if e.config.Image == "bad" {
			return errors.New(`OCI runtime create failed: exec: "nosuch": executable file not found in $PATH`)
		}
		go e.run()
		return nil
	}
	e.c.remove = func(string, bool, bool) error { e.note("remove"); return nil }
	e.c.list = func(o ListOptions) ([]container.Summary, error) {
		return []container.Summary{{
			ID: strings.Repeat("c", 64), Names: []string{"/web"}, Image: "busybox", Command: "sh", State: "running",
			Status: "Up 3 seconds", Created: time.Now().Unix(),
			Ports: []container.PortSummary{{IP: netip.IPv4Unspecified(), PrivatePort: 80, PublicPort: 8080, Type: "tcp"}},
		}}, nil
	}
	e.c.inspect = func(ref string) (container.InspectResponse, error) {
		return container.InspectResponse{ID: strings.Repeat("c", 64), Name: "/web", State: &container.State{Running: true},
			Config: &container.Config{}, HostConfig: &container.HostConfig{}, NetworkSettings: &container.NetworkSettings{
				Networks: map[string]*network.EndpointSettings{"bridge": {IPAddress: netip.MustParseAddr("172.17.0.2")}},
			}}, nil
	}
	e.c.logs = func(_ context.Context, o LogsOptions, w io.Writer) error {
		_, _ = w.Write(frame(false, stdoutFrame, "out\n"))
		_, _ = w.Write(frame(false, stderrFrame, "err\n"))
		return nil
	}
	e.addExec()
	e.addNetworks()
	e.addImages()
	e.v.addVolumes()
	e.s.info = system.Info{Name: "host1", OSType: "linux", ServerVersion: "0.1", Driver: "overlayfs",
		Swarm: swarm.Info{LocalNodeState: "active", NodeID: "node1", ControlAvailable: true}}
	e.cl.nodes = []swarm.Node{{
		ID: "node1", Description: swarm.NodeDescription{Hostname: "host1"}, Status: swarm.NodeStatus{State: "ready"},
		Spec: swarm.NodeSpec{Availability: "active"}, ManagerStatus: &swarm.ManagerStatus{Leader: true, Addr: "192.168.66.11:7946", Reachability: "reachable"},
	}}
	e.cl.init = func(ClusterInitRequest) (ClusterInitResponse, error) {
		e.s.state = "active/manager"
		return ClusterInitResponse{NodeID: "node1"}, nil
	}
	e.cl.token = func(bool) (ClusterToken, error) { return ClusterToken{Token: "TOKEN"}, nil }
	return e
}

func (e *toy) addExec() {
	e.e.create = func(_ string, req container.ExecCreateRequest) (string, error) { return req.Cmd[0], nil }
	e.e.inspect = func(id string) (container.ExecInspectResponse, error) {
		code := map[string]int{"cat": 5, "nosuch": 127}[id]
		return container.ExecInspectResponse{ID: id, ExitCode: &code}, nil
	}
	e.e.start = func(id string, _ container.ExecStartRequest) (Stream, error) {
		if id == "nosuch" {
			return nil, errors.New("exec failed: executable file not found in $PATH")
		}
		p := newProcess()
		go p.echo()
		return p, nil
	}
}

func (e *toy) addNetworks() {
	nets := []network.Network{{Name: "ov_net1", ID: strings.Repeat("a", 64), Driver: "overlay", Scope: "global"}}
	e.n.list = func(Filters) (list []network.Summary, _ error) {
		for _, n := range nets {
			list = append(list, network.Summary{Network: n})
		}
		return list, nil
	}
	e.n.inspect = func(ref string) (network.Inspect, error) {
		for _, n := range nets {
			if ref == n.Name || ref == n.ID {
				return network.Inspect{Network: n}, nil
			}
		}
		return network.Inspect{}, notFound("network %s not found", ref)
	}
	e.n.create = func(req network.CreateRequest) (network.CreateResponse, error) {
		nets = append(nets, network.Network{Name: req.Name, ID: strings.Repeat("b", 64), Driver: req.Driver, Scope: "local"})
		return network.CreateResponse{ID: strings.Repeat("b", 64)}, nil
	}
	e.n.remove = func(ref string) error {
		if _, err := e.n.inspect(ref); err != nil {
			return err
		}
		nets = slices.DeleteFunc(nets, func(n network.Network) bool { return n.ID == ref || n.Name == ref })
		return nil
	}
}

func (e *toy) addImages() {
	e.i.list = func(bool, Filters) ([]image.Summary, error) {
		return []image.Summary{{ID: "sha256:" + strings.Repeat("d", 64), RepoTags: []string{"busybox:latest"}, Size: 2_000_000, Containers: -1}}, nil
	}
	e.i.pull = func(_ context.Context, ref, _, _ string, p Progress) error {
		e.note("pull %s", ref)
		p.Status("Pulling from library/busybox", "latest", 0, 0)
		p.Status("Downloading", "4abcf2066143", 5, 10)
		if strings.Contains(ref, "half") {
			return errdefs.ErrUnavailable.WithMessage("registry gone")
		}
		p.Status("Status: Downloaded newer image for busybox:latest", "", 0, 0)
		e.image = true
		return nil
	}
}

// docker runs the stock client against a socket.
func docker(t *testing.T, socket, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	bin, err := exec.LookPath("docker")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%v: run make test-deps", err)
		}
		t.Skip("no docker client here")
	}
	// What is said and in which order calls are made changed over the years; these tests hold the present client's. The
	// end-to-end tests walk with whichever client there is.
	var major int
	version, err := exec.Command(bin, "--version").Output()
	if _, serr := fmt.Sscanf(string(version), "Docker version %d.", &major); err != nil || serr != nil || major < 25 {
		t.Skipf("the docker client here is too old: %s", version)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, append([]string{"-H", "unix://" + socket}, args...)...)
	cmd.Env = []string{"HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH"), "DOCKER_CLI_HINTS=false"}
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func TestDockerCommands(t *testing.T) {
	tests := []struct {
		args   string
		stdin  string
		code   int
		stdout []string
		stderr string
	}{
		{"version", "", 0, []string{"Server: minictl", "API version:      1.51 (minimum version 1.24)"}, ""},
		{"info", "", 0, []string{"Name: host1", "Swarm: active", "Server Version: 0.1"}, ""},
		{"ps -a", "", 0, []string{"cccccccccccc", "busybox", "Up 3 seconds", "0.0.0.0:8080->80/tcp", "web"}, ""},
		{"inspect -f {{.NetworkSettings.IPAddress}} web", "", 0, []string{"172.17.0.2"}, ""},
		{"logs web", "", 0, []string{"out\n"}, "err\n"},
		{"exec -i web cat", "typed", 5, []string{"typed"}, "bye"},
		{"exec web nosuch", "", 127, []string{"exec failed: executable file not found"}, ""},
		{"network ls", "", 0, []string{"aaaaaaaaaaaa   ov_net1   overlay   global"}, ""},
		{"network inspect ov_net1", "", 0, []string{`"Name": "ov_net1"`, `"Containers": {}`}, ""},
		{"network inspect nope", "", 1, []string{"[]"}, "network nope not found"},
		{"network create net2", "", 0, []string{strings.Repeat("b", 64)}, ""},
		{"network rm net2", "", 0, []string{"net2"}, ""},
		{"network rm net2", "", 1, nil, "network net2 not found"},
		{"images", "", 0, []string{"busybox", "latest", "dddddddddddd", "2MB"}, ""},
		{"pull busybox", "", 0, []string{"latest: Pulling from library/busybox", "Status: Downloaded newer image"}, ""},
		{"pull half", "", 1, nil, "registry gone"},
		{"run -d busybox", "", 0, []string{strings.Repeat("c", 64)}, ""},
		{"volume create data", "", 0, []string{"data\n"}, ""},
		{"volume ls", "", 0, []string{"DRIVER    VOLUME NAME\nlocal     data\n"}, ""},
		{"volume inspect data", "", 0, []string{`"Mountpoint": "/v/data/_data"`, `"Labels": null`, `"Options": null`, `"Scope": "local"`}, ""},
		{"volume inspect nope", "", 1, []string{"[]"}, "get nope: no such volume"},
		{"volume rm data", "", 1, nil, "remove data: volume is in use - [c1]"},
		{"volume rm -f nope", "", 0, []string{"nope"}, ""},
		{"volume prune -f", "", 0, []string{"Deleted Volumes:\nfffff\n\nTotal reclaimed space: 7B"}, ""},
		{"volume prune -af", "", 0, []string{"Deleted Volumes:\ndata\n\nTotal reclaimed space: 7B"}, ""},
		{"search busybox", "", 1, nil, "searching a registry is not supported"},
		{"swarm init", "", 0, []string{"Swarm initialized: current node (node1)", "docker swarm join --token TOKEN 192.168.66.11:7946"}, ""},
		{"swarm join-token -q worker", "", 0, []string{"TOKEN"}, ""},
		{"node ls", "", 0, []string{"node1 *", "host1", "Ready", "Active", "Leader"}, ""},
		{"node inspect self", "", 0, []string{`"Hostname": "host1"`}, ""},
		{"service ls", "", 1, nil, "services are not supported"},
	}
	e := newToy()
	socket := serve(t, &e.fakes)
	for _, tt := range tests {
		out, errs, code := docker(t, socket, tt.stdin, strings.Fields(tt.args)...)
		if code != tt.code || !strings.Contains(errs, tt.stderr) {
			t.Errorf("docker %s: exit %d, want %d; stderr %s", tt.args, code, tt.code, errs)
		}
		for _, want := range tt.stdout {
			if !strings.Contains(out, want) {
				t.Errorf("docker %s: no %q in\n%s", tt.args, want, out)
			}
		}
	}
}

func TestDockerRun(t *testing.T) {
	tests := map[string]struct {
		args   string
		stdin  string
		code   int
		stdout string
		stderr string
		calls  []string
	}{
		"attached": {"run --name web busybox", "", 3, "hello\n", "", []string{
			"create web", "pull docker.io/library/busybox:latest", "create web", "attach false", "wait next-exit", "start"}},
		"stdin": {"run -i --name web busybox", "typed", 3, "hello\ntyped", "bye", []string{
			"create web", "pull docker.io/library/busybox:latest", "create web", "attach true", "wait next-exit", "start"}},
		"rm": {"run --rm --name web busybox", "", 3, "hello\n", "", []string{
			"create web", "pull docker.io/library/busybox:latest", "create web", "attach false", "wait removed", "start"}},
		"bad name": {"run --name -x busybox", "", 125, "", "Invalid container name (-x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", nil},
		"not found": {"run --name web bad", "", 127, "", "executable file not found", []string{
			"create web", "pull docker.io/library/bad:latest", "create web", "attach false", "wait next-exit", "start"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := newToy()
			out, errs, code := docker(t, serve(t, &e.fakes), tt.stdin, strings.Fields(tt.args)...)
			if code != tt.code || out != tt.stdout || !strings.Contains(errs, tt.stderr) {
				t.Errorf("exit %d, stdout %q, stderr %q", code, out, errs)
			}
			if !slices.Equal(e.calls, tt.calls) {
				t.Errorf("calls %q", e.calls)
			}
		})
	}
}
