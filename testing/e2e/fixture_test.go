// Package e2e drives the built binary, and the stock docker CLI, in the lab: real daemons, containers, packets.
package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/minictl/minictl/testing/lab"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == udpEcho {
		fmt.Fprintln(os.Stderr, echo())
		os.Exit(1)
	}
	roles := map[string]func(args []string) error{attack: attackMain, pluginRole: pluginMain, traffic: trafficMain}
	if len(os.Args) > 1 && roles[os.Args[1]] != nil {
		if err := roles[os.Args[1]](os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	lab.Main(m)
}

// udpEcho makes this test program, bound into a container, answer datagrams on port 53 with where they came from.
const udpEcho = "udp-echo"

func echo() error {
	c, err := net.ListenPacket("udp", ":53")
	if err != nil {
		return err
	}
	buf := make([]byte, 100)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		if _, err := c.WriteTo(fmt.Appendf(nil, "%s from %s", buf[:n], from), from); err != nil {
			return err
		}
	}
}

// awaitListener waits until a container's process listens: run returns when it runs, which is a little earlier.
func awaitListener(t *testing.T, l *lab.Lab, h *lab.Host, name string, port int) {
	t.Helper()
	l.Eventually(soon, func() error {
		out := h.MustMinictl("exec", name, "netstat", "-lnt")
		if !strings.Contains(out, fmt.Sprintf(":%d ", port)) {
			return errf("%s does not listen yet: %s", name, out)
		}
		return nil
	})
}

// soon bounds the waits for what other hosts learn by themselves.
const soon = 30 * time.Second

// patient bounds the waits for what takes its share of a busy machine.
const patient = 2 * time.Minute

// imageDir is where make images puts the images.
func imageDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../bin/images")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "busybox.tar")); err != nil {
		t.Fatalf("no images: run make images: %v", err)
	}
	return dir
}

// start boots a host with a daemon and both images.
func start(t *testing.T, l *lab.Lab, name string, flags ...string) *lab.Host {
	t.Helper()
	h := l.Host(name)
	h.Daemon(flags...)
	loadImages(t, h)
	return h
}

func loadImages(t *testing.T, h *lab.Host) {
	t.Helper()
	for _, f := range []string{"busybox.tar", "httpd.tar"} {
		h.MustMinictl("load", "-q", "-i", filepath.Join(imageDir(t), f))
	}
}

// pair is two hosts in one cluster, joined as a user joins them: by the line that init prints.
func pair(t *testing.T, l *lab.Lab) (h1, h2 *lab.Host) {
	t.Helper()
	h1, h2 = start(t, l, "host1"), start(t, l, "host2")
	join(t, h1, h2)
	return h1, h2
}

func join(t *testing.T, h1, h2 *lab.Host) {
	t.Helper()
	h2.MustMinictl(joinLine(t, h1.MustMinictl("cluster", "init", "--advertise-addr", "eth0"))...)
}

// joinLine finds the pasteable line in what init printed, without the program's name.
func joinLine(t *testing.T, out string) []string {
	t.Helper()
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 3 && f[0] == "minictl" && f[1] == "cluster" && f[2] == "join" {
			return f[1:]
		}
	}
	t.Fatalf("no join line in:\n%s", out)
	return nil
}

// inspect decodes a JSON answer.
func inspect[T any](t *testing.T, out string) T {
	t.Helper()
	var v []T
	if err := json.Unmarshal([]byte(out), &v); err != nil || len(v) != 1 {
		t.Fatalf("not one JSON object: %v\n%s", err, out)
	}
	return v[0]
}

// breakable makes a lab whose daemons have failpoints.
func breakable(t *testing.T) *lab.Lab {
	t.Helper()
	bin, err := filepath.Abs("../../bin/minictl-failpoint")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(bin); err != nil {
		t.Fatalf("no binary with failpoints: run make test: %v", err)
	}
	l := lab.New(t)
	l.Use(bin)
	return l
}

// failpoint is the file that says which step of a host's daemon is armed; see the package of that name.
const failpoint = "/run/minictl-failpoint"

// arm makes a step of a host's daemon fail, or with " kill" behind its name end the daemon.
func arm(t *testing.T, h *lab.Host, step string) {
	t.Helper()
	if err := os.WriteFile(h.Path(failpoint), []byte(step), 0o644); err != nil {
		t.Fatal(err)
	}
}

func disarm(t *testing.T, h *lab.Host) {
	t.Helper()
	if err := os.Remove(h.Path(failpoint)); err != nil {
		t.Fatal(err)
	}
}

func wantMatch(t *testing.T, what, got, pattern string) {
	t.Helper()
	if !regexp.MustCompile(pattern).MatchString(got) {
		t.Errorf("%s: want /%s/ in:\n%s", what, pattern, got)
	}
}

// lines gives the output without trailing space.
func lines(s string) []string {
	var out []string
	for l := range strings.Lines(s) {
		if l = strings.TrimRight(l, " \r\n"); l != "" {
			out = append(out, l)
		}
	}
	return out
}

// fails wants a command that fails with a code and says something.
func fails(t *testing.T, h *lab.Host, code int, pattern string, args ...string) {
	t.Helper()
	out, errOut, got := h.Minictl(args...)
	if got != code {
		t.Errorf("%v: code %d, want %d: %s%s", args, got, code, out, errOut)
	}
	wantMatch(t, strings.Join(args, " "), errOut, pattern)
	if n := len(lines(errOut)); n != 1 {
		t.Errorf("%v: %d lines of error, want one: %s", args, n, errOut)
	}
}

func errf(format string, a ...any) error { return fmt.Errorf(format, a...) }

func itoa(n int) string { return strconv.Itoa(n) }

// fetch gets a page as a program on the host would.
func fetch(t *testing.T, h *lab.Host, url string) string {
	t.Helper()
	client := &http.Client{Timeout: soon, Transport: &http.Transport{DisableKeepAlives: true, DialContext: h.Dial}}
	resp, err := client.Get(url)
	if err != nil {
		t.Errorf("%s: %v", h.Name(), err)
		return ""
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%s %s: %s, %v", h.Name(), url, resp.Status, err)
	}
	return string(b)
}

// deadline bounds one attempt to connect.
func deadline() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	context.AfterFunc(ctx, cancel)
	return ctx
}
