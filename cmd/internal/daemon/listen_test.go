package daemon

import (
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/minictl/minictl/cmd/internal/config"
)

// asActivated makes this test program open the sockets that it was started with, and say which they are.
const asActivated = "MINICTL_TEST_ACTIVATED"

func TestMain(m *testing.M) {
	if name, ok := os.LookupEnv(asActivated); ok {
		os.Exit(printInherited(name))
	}
	os.Exit(m.Run())
}

func printInherited(host string) int {
	list, err := listen(config.Config{Hosts: []string{host}}, slog.New(slog.DiscardHandler))
	if err != nil {
		os.Stdout.WriteString(err.Error())
		return 1
	}
	var out []string
	for _, l := range list {
		out = append(out, l.Addr().String())
	}
	slices.Sort(out)
	_ = json.NewEncoder(os.Stdout).Encode(out)
	return 0
}

// Sockets that systemd opened are taken over by name, or all; one that others reach is refused like one of our own.
func TestSocketActivation(t *testing.T) {
	dir, err := os.MkdirTemp("", "fd") // t.TempDir's names can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	files := map[string]*os.File{}
	for name, addr := range map[string]net.Addr{"a": &net.UnixAddr{Name: a, Net: "unix"}, "b": &net.UnixAddr{Name: b, Net: "unix"},
		"loop": &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, "all": &net.TCPAddr{IP: net.IPv4zero}} {
		l, err := net.Listen(addr.Network(), addr.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		f, err := l.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		files[name] = f
	}
	for _, c := range []struct {
		host  string
		names []string
		want  string
	}{
		{"fd://", []string{"a", "b"}, `["` + a + `","` + b + `"]`},
		{"fd://b", []string{"a", "b"}, `["` + b + `"]`},
		{"fd://nosuch", []string{"a"}, "systemd passed no such socket"},
		{"fd://", nil, "systemd passed no such socket"},
		{"fd://", []string{"loop"}, `["127.0.0.1:`},
		{"fd://", []string{"all"}, "whoever reaches it is root on this host"},
	} {
		// systemd names the process in LISTEN_PID; only a shell knows its own in time.
		cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0"`, self(t))
		cmd.Env = append(os.Environ(), asActivated+"="+c.host)
		for _, n := range c.names {
			cmd.ExtraFiles = append(cmd.ExtraFiles, files[n])
		}
		if n := len(c.names); n > 0 {
			cmd.Env = append(cmd.Env, "LISTEN_FDS="+string(rune('0'+n)), "LISTEN_FDNAMES="+strings.Join(c.names, ":"))
		}
		out, _ := cmd.Output()
		if !strings.Contains(string(out), c.want) {
			t.Errorf("%s of %v: %s, want %s", c.host, c.names, out, c.want)
		}
	}
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
