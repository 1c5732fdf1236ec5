package engine

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"github.com/minictl/minictl/cluster/store/memstore"
	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/runtime/container"
	"github.com/minictl/minictl/runtime/ctrd"
)

func TestScanEscape(t *testing.T) {
	keys := []byte{16, 17}
	for _, c := range []struct {
		typed, pass, held string
		detach            bool
	}{
		{"abc", "abc", "", false}, {"ab\x10", "ab", "\x10", false}, {"\x10\x11", "", "", true}, {"ab\x10\x11cd", "ab", "", true},
		{"\x10a", "\x10a", "", false}, {"\x10\x10", "\x10", "\x10", false}, {"", "", "", false},
	} {
		pass, held, detach := scanEscape(keys, []byte(c.typed))
		if string(pass) != c.pass || string(held) != c.held || detach != c.detach {
			t.Errorf("%q: %q %q %t", c.typed, pass, held, detach)
		}
	}
}

// TestLateStream waits for the start, and no longer than its client.
func TestLateStream(t *testing.T) {
	l := newLateStream(ctrd.AttachOptions{})
	read := make(chan error, 1)
	go func() { _, err := l.Read(make([]byte, 1)); read <- err }()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-read; !errors.Is(err, io.EOF) {
		t.Errorf("read after close: %v", err)
	}
	l = newLateStream(ctrd.AttachOptions{})
	l.fail(errors.New("no start"))
	if _, err := l.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read after a failed start: %v", err)
	}
}

func TestStartExitCode(t *testing.T) {
	for text, want := range map[string]int{
		`exec: "x": executable file not found in $PATH`: 127, `stat /x: no such file or directory`: 127,
		`exec: "/etc": permission denied`: 126, `exec: "/etc": is a directory`: 126, "something else": 128,
	} {
		if got := startExitCode(errors.New(text)); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}

func TestEndpointNames(t *testing.T) {
	s := &container.Spec{ID: strings.Repeat("ab", 32), Name: "web", Config: &mobycontainer.Config{Hostname: "web"}}
	got := endpointNames(s, &network.EndpointSettings{Aliases: []string{"www", "web"}})
	if want := []string{"web", "www", s.ID[:12]}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestWishNetworks(t *testing.T) {
	spec := func(mode string) *container.Spec {
		return &container.Spec{HostConfig: &mobycontainer.HostConfig{NetworkMode: mobycontainer.NetworkMode(mode)}}
	}
	s := spec("b")
	nc := &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{"c": nil, "a": {}}}
	if err := wishNetworks(s, nc, nil); err != nil || !slices.Equal(s.NetworkOrder, []string{"b", "a", "c"}) {
		t.Errorf("%v, %v", s.NetworkOrder, err)
	}
	s, nc.EndpointsConfig["d"] = spec("b"), nil
	if err := wishNetworks(s, nc, []string{"b", "d", "nosuch", "c"}); err != nil || !slices.Equal(s.NetworkOrder, []string{"b", "d", "c", "a"}) {
		t.Errorf("as the client said: %v, %v", s.NetworkOrder, err)
	}
	s = spec("none")
	if err := wishNetworks(s, nc, nil); err == nil {
		t.Error("none together with others")
	}
	s = spec("bridge")
	alias := &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{"default": {Aliases: []string{"x"}}}}
	if err := wishNetworks(s, alias, nil); err == nil || !strings.Contains(err.Error(), "only supported for user-defined networks") {
		t.Errorf("aliases on the default bridge: %v", err)
	}
}

// TestEtcFiles are the files in a container, and that a link in them cannot lead outside.
func TestEtcFiles(t *testing.T) {
	e := newHost(t, memstore.New(), "host")
	s := &container.Spec{
		ID: strings.Repeat("ab", 32), Name: "web", NetworkOrder: []string{"ov"},
		Config:     &mobycontainer.Config{Hostname: "web", Domainname: "lan"},
		HostConfig: &mobycontainer.HostConfig{NetworkMode: "ov", ExtraHosts: []string{"db:10.1.1.1"}},
	}
	if err := os.MkdirAll(e.dir(s.ID), 0o755); err != nil {
		t.Fatal(err)
	}
	ep := container.Endpoint{Key: "ov", Address: lan(t, "10.0.0.0/24")[0].Prefix}
	if err := e.writeEtc(s, []container.Endpoint{ep, {Address: ep.Address}}); err != nil {
		t.Fatal(err)
	}
	hosts, err := os.ReadFile(filepath.Join(e.dir(s.ID), "hosts"))
	if err != nil || !strings.Contains(string(hosts), "10.1.1.1\tdb\n10.0.0.0\tweb.lan web\n") || strings.Count(string(hosts), "web.lan") != 1 {
		t.Errorf("hosts: %v\n%s", err, hosts)
	}
	resolv, err := os.ReadFile(filepath.Join(e.dir(s.ID), "resolv.conf"))
	if err != nil || !strings.Contains(string(resolv), "nameserver 127.0.0.11\n") {
		t.Errorf("resolv.conf: %v\n%s", err, resolv)
	}
	s.HostConfig.ExtraHosts = []string{"bad"}
	if _, err := e.hostsFile(s, nil); err == nil {
		t.Error("a bad --add-host was taken")
	}
	root := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(root, "etc"), 0o755), os.Symlink("/etc/passwd", filepath.Join(root, "etc/passwd"))); err != nil {
		t.Fatal(err)
	}
	if u, err := readUserFiles(root); err == nil && len(u.passwd) > 0 {
		t.Errorf("a container's link led to the host's passwd: %s", u.passwd)
	}
}

// TestEvents reach who listens, filtered, the past ones first.
func TestEvents(t *testing.T) {
	e := newHost(t, memstore.New(), "host")
	n := &Network{ID: "1", Name: "a", Driver: "overlay"}
	e.networkEvent(n, events.ActionCreate)
	ch, err := e.Events(t.Context(), "1", "", api.Filters{"type": {"network": true}})
	if err != nil {
		t.Fatal(err)
	}
	e.imageEvent("sha256:1", "busybox", nil, events.ActionPull)
	e.networkEvent(n, events.ActionDestroy)
	for _, want := range []events.Action{events.ActionCreate, events.ActionDestroy} {
		if m := <-ch; m.Action != want || m.Actor.Attributes["name"] != "a" {
			t.Errorf("%+v, want %s", m, want)
		}
	}
}

// TestState keeps what it is given, and refuses a newer schema.
func TestState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s, err := openState(path)
	if err != nil {
		t.Fatal(err)
	}
	id, err := s.identity()
	if err != nil || len(id) != 64 {
		t.Errorf("identity %q, %v", id, err)
	}
	want := record{Spec: container.Spec{ID: "c", Name: "n", Config: &mobycontainer.Config{}}, Status: container.Status{State: "exited", ExitCode: 3}}
	if err := errors.Join(s.put("containers", "c", want), s.Close()); err != nil {
		t.Fatal(err)
	}
	if s, err = openState(path); err != nil {
		t.Fatal(err)
	}
	var got []record
	if err := each(s, "containers", func(r record) { got = append(got, r) }); err != nil || len(got) != 1 || got[0].Spec.Name != "n" || got[0].Status.ExitCode != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	if again, err := s.identity(); err != nil || again != id {
		t.Errorf("identity %q, %v; was %q", again, err, id)
	}
	if _, err := openState(path); err == nil || !strings.Contains(err.Error(), "another daemon") {
		t.Errorf("opened twice: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestExecIsKeptForAWhile(t *testing.T) {
	x := &execution{}
	later := time.Now().Add(time.Hour)
	if x.endedBefore(later) {
		t.Error("one that runs has ended")
	}
	x.end(0)
	if !x.endedBefore(later) || x.endedBefore(time.Now().Add(-execKept)) {
		t.Error("one that has just ended is not kept, or for ever")
	}
}
