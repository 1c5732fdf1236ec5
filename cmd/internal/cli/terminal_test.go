package cli_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/docker/cli/cli/config"
	"golang.org/x/sys/unix"

	"github.com/minictl/minictl/cmd/internal/cli"
	"github.com/minictl/minictl/cmd/internal/cli/clitest"
)

// terminal is a user at a pseudo-terminal.
type terminal struct {
	t           *testing.T
	master, tty *os.File
	before      *unix.Termios
	mu          sync.Mutex
	screen      bytes.Buffer
	changed     chan struct{}
}

func newTerminal(t *testing.T) *terminal {
	master, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close(); tty.Close() })
	if err := pty.Setsize(master, &pty.Winsize{Rows: 33, Cols: 101}); err != nil {
		t.Fatal(err)
	}
	u := &terminal{t: t, master: master, tty: tty, changed: make(chan struct{}, 1)}
	u.before = u.state()
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			if err != nil {
				return
			}
			u.mu.Lock()
			u.screen.Write(buf[:n])
			u.mu.Unlock()
			select {
			case u.changed <- struct{}{}:
			default:
			}
		}
	}()
	return u
}

func (u *terminal) state() *unix.Termios {
	u.t.Helper()
	s, err := unix.IoctlGetTermios(int(u.tty.Fd()), unix.TCGETS)
	if err != nil {
		u.t.Fatal(err)
	}
	return s
}

func (u *terminal) run(d *clitest.Daemon, args ...string) <-chan int {
	config.SetDir(u.t.TempDir())
	done := make(chan int, 1)
	go func() {
		done <- cli.Main(context.Background(), append([]string{"-H", d.Host}, args...),
			cli.Streams{In: u.tty, Out: u.tty, Err: u.tty})
	}()
	return done
}

func (u *terminal) waitFor(text string) {
	u.t.Helper()
	deadline := time.After(clitest.Patience)
	for {
		u.mu.Lock()
		s := u.screen.String()
		u.mu.Unlock()
		if strings.Contains(s, text) {
			return
		}
		select {
		case <-u.changed:
		case <-deadline:
			u.t.Fatalf("the screen never showed %q: %q", text, s)
		}
	}
}

func (u *terminal) typeKeys(s string) {
	if _, err := io.WriteString(u.master, s); err != nil {
		u.t.Fatal(err)
	}
}

func (u *terminal) mustBeRaw() {
	u.t.Helper()
	if l := u.state().Lflag; l&(unix.ICANON|unix.ECHO|unix.ISIG) != 0 {
		u.t.Errorf("terminal is not raw: lflag %#x", l)
	}
}

// waitRaw returns once the client has set the terminal raw, or when the test's patience ends.
func (u *terminal) waitRaw() {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(clitest.Patience); u.state().Lflag&unix.ICANON != 0; {
		select {
		case <-tick.C:
		case <-deadline:
			return
		}
	}
}

func (u *terminal) mustBeRestored() {
	u.t.Helper()
	if after := u.state(); *after != *u.before {
		u.t.Errorf("terminal was not restored:\nbefore %+v\nafter  %+v", u.before, after)
	}
}

// shell scripts a container with a terminal: a prompt, an echo of each line, and exit on "exit".
func shell(t *testing.T) *clitest.Daemon {
	d := clitest.Start(t)
	exited := make(chan struct{})
	d.Handle("GET /containers/{id}/json", clitest.JSON(200,
		`{"Id":"`+id+`","Config":{"Tty":true,"OpenStdin":true},"HostConfig":{},"State":{"Running":true}}`))
	d.Handle("POST /containers/create", clitest.JSON(201, `{"Id":"`+id+`"}`))
	d.Handle("POST /containers/{id}/start", clitest.Empty(204))
	d.Handle("POST /containers/{id}/resize", clitest.Empty(200))
	d.Handle("POST /exec/{id}/resize", clitest.Empty(200))
	d.Handle("POST /containers/{id}/exec", clitest.JSON(201, `{"Id":"e1"}`))
	d.Handle("GET /exec/{id}/json", clitest.JSON(200, `{"ExitCode":9}`))
	talk := clitest.Hijack(func(c net.Conn, in io.Reader) {
		io.WriteString(c, "prompt# ")
		var line []byte
		b := make([]byte, 1)
		for {
			if _, err := io.ReadFull(in, b); err != nil {
				return
			}
			if b[0] != '\r' {
				line = append(line, b[0])
				continue
			}
			if string(line) == "exit" {
				close(exited)
				return
			}
			io.WriteString(c, "you typed "+string(line)+"\r\n")
			line = nil
		}
	})
	d.Handle("POST /containers/{id}/attach", talk)
	d.Handle("POST /exec/{id}/start", func(w http.ResponseWriter, r *http.Request) {
		r.Body.Close() // its JSON is not typed text
		talk(w, r)
	})
	d.Handle("POST /containers/{id}/wait", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		select {
		case <-exited:
			io.WriteString(w, `{"StatusCode":9}`)
		case <-r.Context().Done():
		}
	})
	return d
}

func TestRunInteractive(t *testing.T) {
	u, d := newTerminal(t), shell(t)
	done := u.run(d, "run", "-it", "busybox")
	u.waitFor("prompt# ")
	u.mustBeRaw()
	size := d.Find(t, "POST", "/containers/"+id+"/resize").Query
	if size.Get("h") != "33" || size.Get("w") != "101" {
		t.Errorf("size %v", size)
	}
	if err := pty.Setsize(u.master, &pty.Winsize{Rows: 40, Cols: 120}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGWINCH); err != nil {
		t.Fatal(err)
	}
	d.FindWhere(t, "resize to 40x120", func(r clitest.Request) bool { return r.Query.Get("h") == "40" && r.Query.Get("w") == "120" })
	u.typeKeys("hello\r")
	u.waitFor("you typed hello")
	u.typeKeys("exit\r")
	if code := <-done; code != 9 {
		t.Errorf("exit code %d, want 9", code)
	}
	u.mustBeRestored()
}

func TestDetachKeys(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		keys string
	}{
		{"run", []string{"run", "-it", "busybox"}, "\x10\x11"},
		{"own keys", []string{"run", "-it", "--detach-keys", "ctrl-a,d", "busybox"}, "\x01d"},
		{"exec", []string{"exec", "-it", "web", "sh"}, "\x10\x11"},
		{"attach", []string{"attach", "web"}, "\x10\x11"},
		{"start", []string{"start", "-ai", "web"}, "\x10\x11"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, d := newTerminal(t), shell(t)
			done := u.run(d, c.args...)
			u.waitFor("prompt# ")
			u.mustBeRaw()
			u.typeKeys(c.keys)
			if code := <-done; code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
			u.mustBeRestored()
		})
	}
}

func TestTerminalIsRestoredWhenStartFails(t *testing.T) {
	u, d := newTerminal(t), clitest.Start(t)
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	d.Handle("POST /containers/create", clitest.JSON(201, `{"Id":"`+id+`"}`))
	d.Handle("POST /containers/{id}/attach", clitest.Hijack(func(net.Conn, io.Reader) { <-over }))
	d.Handle("POST /containers/{id}/wait", func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	d.Handle("DELETE /containers/{id}", func(w http.ResponseWriter, _ *http.Request) {
		u.mustBeRestored() // before anything else is done, or printed
		w.WriteHeader(204)
	})
	d.Handle("POST /containers/{id}/start", func(w http.ResponseWriter, r *http.Request) {
		u.waitRaw()
		clitest.Fail(400, "executable file not found in $PATH")(w, r)
	})
	if code := <-u.run(d, "run", "-it", "busybox", "nosuch"); code != 127 {
		t.Errorf("exit code %d, want 127", code)
	}
	u.mustBeRestored()
}

// A signal from outside ends exec, which does not pass signals on; the terminal must not stay raw.
func TestTerminalIsRestoredAfterSignal(t *testing.T) {
	u, d := newTerminal(t), shell(t)
	done := u.run(d, "exec", "-it", "web", "sh")
	u.waitFor("prompt# ")
	u.mustBeRaw()
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := <-done; code != 128+int(syscall.SIGTERM) {
		t.Errorf("exit code %d", code)
	}
	u.mustBeRestored()
}

// -t needs our own input to be a terminal, and says so before anything is created.
func TestTTYWithoutTerminal(t *testing.T) {
	d := shell(t)
	r := clitest.Run(t, d, "run", "-it", "busybox")
	if r.Code != 125 || !strings.Contains(r.Err, "stdin is not a terminal") || len(d.Requests()) != 0 {
		t.Errorf("got %+v, requests %q", r, d.Requests())
	}
}

// TestQuestionsEndWithASignal: Ctrl-C at a question ends the command at once, does nothing of it, and shows again what is
// typed.
func TestQuestionsEndWithASignal(t *testing.T) {
	for question, args := range map[string][]string{
		"continue? [y/N] ": {"volume", "prune"},
		"Passphrase: ":     {"cluster", "backup", filepath.Join(t.TempDir(), "cluster.age")},
		"Password: ":       {"login", "-u", "joe", "registry.example"},
	} {
		t.Run(args[0], func(t *testing.T) {
			d := clitest.Start(t)
			d.Handle("GET /cluster/backup", clitest.JSON(200, "secret"))
			u := newTerminal(t)
			done := u.run(d, args...)
			u.waitFor(question)
			if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			select {
			case code := <-done:
				if code != 130 {
					t.Errorf("exit code %d, want 130", code)
				}
			case <-time.After(clitest.Patience):
				t.Error("the command still waits for an answer")
				u.typeKeys("\n\n")
				<-done
			}
			u.mustBeRestored()
			for _, r := range d.Requests() {
				if r != "GET /cluster/backup" {
					t.Errorf("asked the daemon for %s", r)
				}
			}
		})
	}
}

// TestHiddenAnswers: a passphrase is asked for twice and a password once, none of them shown.
func TestHiddenAnswers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cluster.age")
	d := clitest.Start(t)
	d.Handle("GET /cluster/backup", clitest.JSON(200, "secret"))
	d.Handle("POST /auth", clitest.JSON(200, `{"Status":"Login Succeeded"}`))
	u := newTerminal(t)
	done := u.run(d, "cluster", "backup", file)
	u.waitFor("Passphrase: ")
	u.typeKeys("hidden1\n")
	u.waitFor("The same again: ")
	u.typeKeys("hidden1\n")
	if code := <-done; code != 0 {
		t.Errorf("backup: exit code %d", code)
	}
	u.mustBeRestored()

	done = u.run(d, "login", "registry.example")
	u.waitFor("Username: ")
	u.typeKeys("joe\n")
	u.waitFor("Password: ")
	u.typeKeys("hidden2\n")
	if code := <-done; code != 0 {
		t.Errorf("login: exit code %d", code)
	}
	u.mustBeRestored()
	if got := d.Find(t, "POST", "/auth").Body; !strings.Contains(got, `"username":"joe"`) || !strings.Contains(got, `"password":"hidden2"`) {
		t.Errorf("logged in with %s", got)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if s := u.screen.String(); strings.Contains(s, "hidden") || !strings.Contains(s, "joe") {
		t.Errorf("the screen shows %q", s)
	}
}
