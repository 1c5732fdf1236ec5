package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
)

func TestClientNegotiates(t *testing.T) {
	f := &fakes{}
	f.s.state = "active/manager"
	f.s.info = system.Info{Name: "host1", OSType: "linux"}
	socket := serve(t, f)
	c := dial(t, socket)
	ping, err := c.Ping(t.Context(), client.PingOptions{NegotiateAPIVersion: true})
	if err != nil {
		t.Fatal(err)
	}
	if ping.APIVersion != DefaultVersion || ping.OSType != "linux" || ping.Experimental || ping.BuilderVersion != "1" ||
		ping.SwarmStatus.NodeState != swarm.LocalNodeStateActive || !ping.SwarmStatus.ControlAvailable {
		t.Errorf("%+v", ping)
	}
	if c.ClientVersion() != DefaultVersion {
		t.Errorf("negotiated %s", c.ClientVersion())
	}
	v, err := c.ServerVersion(t.Context(), client.ServerVersionOptions{})
	if err != nil || v.APIVersion != DefaultVersion || v.MinAPIVersion != MinVersion {
		t.Error(v, err)
	}
	if info, err := c.Info(t.Context(), client.InfoOptions{}); err != nil || info.Info.Name != "host1" {
		t.Error(info, err)
	}
	if _, err := dial(t, socket, client.WithAPIVersion("1.55")).Info(t.Context(), client.InfoOptions{}); err == nil ||
		!strings.Contains(err.Error(), "client version 1.55 is too new. Maximum supported API version is 1.51") {
		t.Error(err)
	}
}

func TestClientContainers(t *testing.T) {
	f := &fakes{}
	var calls []string
	note := func(format string, args ...any) { calls = append(calls, fmt.Sprintf(format, args...)) }
	f.c.create = func(name string, req container.CreateRequest) (container.CreateResponse, error) {
		note("create %s %s %s", name, req.Image, req.HostConfig.NetworkMode)
		if name == "taken" {
			return container.CreateResponse{}, fmt.Errorf("Conflict. The container name %q is already in use: %w", "/taken", errdefs.ErrConflict)
		}
		return container.CreateResponse{ID: "c1"}, nil
	}
	f.c.start = func(_ context.Context, ref string) error {
		note("start %s", ref)
		if ref == "running" {
			return errdefs.ErrNotModified
		}
		return nil
	}
	f.c.stop = func(ref, signal string, timeout *int) error { note("stop %s %s %d", ref, signal, *timeout); return nil }
	f.c.remove = func(ref string, force, volumes bool) error {
		note("remove %s %v %v", ref, force, volumes)
		return nil
	}
	f.c.simple = func(op, ref, arg string) error { note("%s %s %s", op, ref, arg); return nil }
	f.c.list = func(o ListOptions) ([]container.Summary, error) {
		note("list %v %d %v", o.All, o.Limit, o.Filters["label"]["a=b"])
		return nil, nil
	}
	c, ctx := dial(t, serve(t, f)), t.Context()

	res, err := c.ContainerCreate(ctx, client.ContainerCreateOptions{
		Name: "web", Config: &container.Config{Image: "bb"}, HostConfig: &container.HostConfig{NetworkMode: "net"},
	})
	if err != nil || res.ID != "c1" || res.Warnings == nil {
		t.Error(res, err)
	}
	_, err = c.ContainerCreate(ctx, client.ContainerCreateOptions{Name: "taken", Config: &container.Config{Image: "bb"}})
	if !errdefs.IsConflict(err) || !strings.HasSuffix(err.Error(), `Conflict. The container name "/taken" is already in use`) {
		t.Error(err)
	}
	ten := 10
	list, err := c.ContainerList(ctx, client.ContainerListOptions{All: true, Limit: 2, Filters: make(client.Filters).Add("label", "a=b")})
	if err != nil || list.Items == nil {
		t.Error("list is null, or", err)
	}
	for _, err := range []error{
		second(c.ContainerStart(ctx, "web", client.ContainerStartOptions{})),
		second(c.ContainerStart(ctx, "running", client.ContainerStartOptions{})), // 304 is no error
		second(c.ContainerStart(ctx, "/web", client.ContainerStartOptions{})),
		second(c.ContainerStop(ctx, "web", client.ContainerStopOptions{Timeout: &ten, Signal: "INT"})),
		second(c.ContainerRestart(ctx, "web", client.ContainerRestartOptions{Signal: "HUP"})),
		second(c.ContainerKill(ctx, "web", client.ContainerKillOptions{Signal: "KILL"})),
		second(c.ContainerRename(ctx, "web", client.ContainerRenameOptions{NewName: "/web2"})),
		second(c.ContainerResize(ctx, "web2", client.ContainerResizeOptions{Height: 24, Width: 80})),
		second(c.ContainerRemove(ctx, "web2", client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	want := []string{
		"create web bb net", "create taken bb ", "list true 2 true", "start web", "start running", "start web", "stop web INT 10",
		"restart web HUP", "kill web KILL", "rename web /web2", "resize web2 ", "remove web2 true true",
	}
	if !slices.Equal(calls, want) {
		t.Errorf("calls\n%s\nwant\n%s", strings.Join(calls, "\n"), strings.Join(want, "\n"))
	}
}

func second[T any](_ T, err error) error { return err }

func TestClientInspect(t *testing.T) {
	f := &fakes{}
	addr := netip.MustParseAddr("172.17.0.2")
	f.c.inspect = func(ref string) (container.InspectResponse, error) {
		if ref != "web" {
			return container.InspectResponse{}, fmt.Errorf("No such container: %s: %w", ref, errdefs.ErrNotFound)
		}
		return container.InspectResponse{ID: "c1", NetworkSettings: &container.NetworkSettings{
			Ports: network.PortMap{network.MustParsePort("80/tcp"): {{HostIP: netip.IPv4Unspecified(), HostPort: "8080"}}},
			Networks: map[string]*network.EndpointSettings{
				"bridge": {IPAddress: addr, IPPrefixLen: 16, MacAddress: network.HardwareAddr{2, 66, 172, 17, 0, 2}},
			},
		}}, nil
	}
	socket := serve(t, f)
	c := dial(t, socket)
	info, err := c.ContainerInspect(t.Context(), "web", client.ContainerInspectOptions{})
	if err != nil || info.Container.NetworkSettings.Networks["bridge"].IPAddress != addr || len(info.Container.NetworkSettings.Ports) != 1 {
		t.Error(info, err)
	}
	_, err = c.ContainerInspect(t.Context(), "nope", client.ContainerInspectOptions{})
	if !errdefs.IsNotFound(err) || err.Error() != "Error response from daemon: No such container: nope" {
		t.Error(err)
	}
	resp, err := httpVia(t, socket).Get("http://d/containers/web/json?unknown=1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var old struct {
		ID              string `json:"Id"`
		NetworkSettings struct {
			IPAddress, MacAddress, Bridge, Gateway string
			IPPrefixLen                            int
			Ports                                  map[string]any
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&old); err != nil {
		t.Fatal(err)
	}
	n := old.NetworkSettings
	if old.ID != "c1" || n.IPAddress != "172.17.0.2" || n.IPPrefixLen != 16 || n.MacAddress != "02:42:ac:11:00:02" || n.Gateway != "" || n.Ports["80/tcp"] == nil {
		t.Errorf("%+v", old)
	}
}

func TestClientNetworks(t *testing.T) {
	f := &fakes{}
	web := network.Network{Name: "web", ID: "n1", Driver: "overlay", Scope: "global"}
	f.n.list = func(fl Filters) ([]network.Summary, error) {
		if !fl["driver"]["overlay"] {
			return nil, nil
		}
		return []network.Summary{{Network: web}}, nil
	}
	f.n.inspect = func(ref string) (network.Inspect, error) {
		if ref != "web" {
			return network.Inspect{}, notFound("network %s not found", ref)
		}
		return network.Inspect{Network: web}, nil
	}
	f.n.create = func(req network.CreateRequest) (network.CreateResponse, error) {
		if req.IPAM.Config[0].Subnet.String() != "10.0.9.0/24" || req.Options["k"] != "v" {
			t.Errorf("%+v", req)
		}
		if req.Name == "web" {
			return network.CreateResponse{}, errdefs.ErrAlreadyExists.WithMessage("network with name web already exists")
		}
		return network.CreateResponse{ID: "n2", Warning: "unknown option k"}, nil
	}
	f.n.remove = func(ref string) error {
		if ref == "bridge" {
			return errdefs.ErrPermissionDenied.WithMessage("bridge is a pre-defined network and cannot be removed")
		}
		return nil
	}
	f.n.connect = func(ref string, req network.ConnectRequest) error {
		if ref != "web" || req.Container != "c1" || req.EndpointConfig.IPAMConfig.IPv4Address.String() != "10.0.9.7" {
			t.Errorf("%s %+v", ref, req)
		}
		return nil
	}
	f.n.cut = func(ref string, req network.DisconnectRequest) error {
		if ref != "web" || req.Container != "c1" || !req.Force {
			t.Errorf("%s %+v", ref, req)
		}
		return nil
	}
	f.n.prune = func(Filters) (network.PruneReport, error) { return network.PruneReport{}, nil }
	socket := serve(t, f)
	c, ctx := dial(t, socket), t.Context()

	list, err := c.NetworkList(ctx, client.NetworkListOptions{Filters: make(client.Filters).Add("driver", "overlay")})
	if err != nil || len(list.Items) != 1 || list.Items[0].Name != "web" {
		t.Error(list, err)
	}
	for path, want := range map[string]string{"/networks": "[]\n", "/networks/web": `"Containers":{}`} {
		resp, err := httpVia(t, socket).Get("http://d" + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if !strings.Contains(string(body), want) {
			t.Errorf("%s: %s", path, body)
		}
	}
	if _, err := c.NetworkInspect(ctx, "nope", client.NetworkInspectOptions{}); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
	ipam := &network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix("10.0.9.0/24")}}}
	made, err := c.NetworkCreate(ctx, "net2", client.NetworkCreateOptions{Driver: "overlay", IPAM: ipam, Options: map[string]string{"k": "v"}})
	if err != nil || made.ID != "n2" || len(made.Warning) != 1 {
		t.Error(made, err)
	}
	if _, err := c.NetworkCreate(ctx, "web", client.NetworkCreateOptions{IPAM: ipam, Options: map[string]string{"k": "v"}}); !errdefs.IsConflict(err) {
		t.Error(err)
	}
	if _, err := c.NetworkRemove(ctx, "bridge", client.NetworkRemoveOptions{}); !errdefs.IsPermissionDenied(err) {
		t.Error(err)
	}
	for _, err := range []error{
		second(c.NetworkRemove(ctx, "web", client.NetworkRemoveOptions{})),
		second(c.NetworkConnect(ctx, "web", client.NetworkConnectOptions{Container: "c1", EndpointConfig: &network.EndpointSettings{
			IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("10.0.9.7")},
		}})),
		second(c.NetworkDisconnect(ctx, "web", client.NetworkDisconnectOptions{Container: "c1", Force: true})),
		second(c.NetworkPrune(ctx, client.NetworkPruneOptions{})),
	} {
		if err != nil {
			t.Error(err)
		}
	}
}

func TestClientImages(t *testing.T) {
	f := &fakes{}
	var calls []string
	note := func(format string, args ...any) { calls = append(calls, fmt.Sprintf(format, args...)) }
	f.i.pull = func(_ context.Context, ref, _, _ string, p Progress) error {
		note("pull %s", ref)
		p.Status("Pulling fs layer", "4abcf2066143", 0, 0)
		if strings.Contains(ref, "half") {
			return errdefs.ErrUnavailable.WithMessage("registry gone")
		}
		return nil
	}
	f.i.load = func(r io.Reader, p Progress) error {
		b, err := io.ReadAll(r)
		note("load %s", b)
		p.Stream("Loaded image: busybox:latest\n")
		return err
	}
	f.i.imp = func(r io.Reader, ref string, changes []string, p Progress) error {
		b, err := io.ReadAll(r)
		note("import %s %s %v", ref, b, changes)
		p.Status("sha256:00", "", 0, 0)
		return err
	}
	f.i.tag = func(ref, target string) error { note("tag %s %s", ref, target); return nil }
	f.i.remove = func(ref string, force, prune bool) ([]image.DeleteResponse, error) {
		note("remove %s %v %v", ref, force, prune)
		return []image.DeleteResponse{{Untagged: ref}}, nil
	}
	f.i.inspect = func(ref string) (image.InspectResponse, error) {
		note("inspect %s", ref)
		return image.InspectResponse{ID: "sha256:00"}, nil
	}
	f.i.list = func(all bool, fl Filters) ([]image.Summary, error) {
		note("list %v %v", all, fl)
		return nil, nil
	}
	c, ctx := dial(t, serve(t, f)), t.Context()

	pull := func(ref string) error {
		res, err := c.ImagePull(ctx, ref, client.ImagePullOptions{})
		if err != nil {
			return err
		}
		return res.Wait(ctx)
	}
	if err := pull("busybox"); err != nil {
		t.Error(err)
	}
	digest := "busybox@sha256:" + strings.Repeat("0", 64)
	if err := pull(digest); err != nil {
		t.Error(err)
	}
	if err := pull("half:1"); err == nil || !strings.Contains(err.Error(), "registry gone") {
		t.Error(err)
	}
	loaded, err := c.ImageLoad(ctx, strings.NewReader("tar"))
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(loaded); string(b) != "{\"stream\":\"Loaded image: busybox:latest\\n\"}\n" {
		t.Errorf("%s", b)
	}
	imported, err := c.ImageImport(ctx, client.ImageImportSource{Source: strings.NewReader("fs"), SourceName: "-"}, "mine", client.ImageImportOptions{
		Tag: "v1", Changes: []string{"CMD a", "ENV b=c"},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, imported)
	if _, err := c.ImageInspect(ctx, "reg:5000/a/b:c"); err != nil {
		t.Error(err)
	}
	if _, err := c.ImageTag(ctx, client.ImageTagOptions{Source: "a/b", Target: "c:d"}); err != nil {
		t.Error(err)
	}
	if res, err := c.ImageRemove(ctx, "reg:5000/a/b:c", client.ImageRemoveOptions{Force: true, PruneChildren: true}); err != nil || len(res.Items) != 1 {
		t.Error(res, err)
	}
	if res, err := c.ImageList(ctx, client.ImageListOptions{All: true}); err != nil || res.Items == nil {
		t.Error(res, err)
	}
	want := []string{
		"pull docker.io/library/busybox:latest", "pull docker.io/library/" + digest, "pull docker.io/library/half:1",
		"load tar", "import mine:v1 fs [CMD a ENV b=c]", "inspect reg:5000/a/b:c", "tag a/b docker.io/library/c:d",
		"remove reg:5000/a/b:c true true", "list true map[]",
	}
	if !slices.Equal(calls, want) {
		t.Errorf("calls\n%s\nwant\n%s", strings.Join(calls, "\n"), strings.Join(want, "\n"))
	}
}
