package wire

import (
	"net"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestURI(t *testing.T) {
	for _, s := range []Stdio{
		{Socket: "/run/x.sock"},
		{Socket: "/run/x.sock", LogDir: "/var/lib/a b/%41?#", MaxSize: 10 << 20, MaxFiles: 3, TTY: true, Stdin: true, StdinOnce: true},
		{Socket: "/run/x.sock", LogDir: "/log", Buffer: 9, Compress: true, Attrs: map[string]string{"a=b": "c&d=e", "": "\x00ä", "tag": ""}},
	} {
		got, ok, err := ParseURI(s.URI())
		if !reflect.DeepEqual(got, s) || !ok || err != nil {
			t.Errorf("%+v became %s and %+v, %v, %v", s, s.URI(), got, ok, err)
		}
	}
	for _, uri := range []string{"", "/run/fifo", "binary:///bin/logger?a=b", "file:///log"} {
		if _, ok, err := ParseURI(uri); ok || err != nil {
			t.Errorf("%q: %v, %v", uri, ok, err)
		}
	}
	for _, uri := range []string{"minictl:///log", "minictl:///log?socket=x", "minictl:///log?socket=/x&max-size=-1", "minictl:///log?socket=/x&max-files=many", "minictl:///log?socket=/x&buffer=-1", "minictl:///log?socket=/x&attrs=1"} {
		if _, ok, err := ParseURI(uri); !ok || err == nil {
			t.Errorf("%q: %v, %v", uri, ok, err)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	f.Add("minictl:///log?socket=/run/x.sock&tty=1&max-size=3")
	f.Fuzz(func(t *testing.T, uri string) {
		s, ok, err := ParseURI(uri)
		if !ok || err != nil {
			return
		}
		if again, ok, err := ParseURI(s.URI()); !reflect.DeepEqual(again, s) || !ok || err != nil {
			t.Errorf("%q: %+v, again %+v, %v, %v", uri, s, again, ok, err)
		}
	})
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(`{"op":"put","name":"dns","fds":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRequest(b)
		if err == nil && (r.FDs < 0 || r.FDs > maxFDs || r.Op != OpAttach && r.Name == "") {
			t.Errorf("%q accepted: %+v", b, r)
		}
	})
}

// pair is a connected pair of unix sockets.
func pair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr)); err != nil {
		t.Fatal(err)
	}
	if b, err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestRequestWithFiles(t *testing.T) {
	for _, n := range []int{0, 1, 3, maxFDs} {
		a, b := pair(t)
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files := make([]*os.File, n)
		for i := range files {
			files[i] = f
		}
		if err := Send(a, Request{Op: OpPut, Name: "x", FDs: n}, files); err != nil {
			t.Fatal(err)
		}
		r, got, err := ReadRequest(b)
		if err != nil || r.Name != "x" || len(got) != n {
			t.Errorf("%d files: %+v, %d, %v", n, r, len(got), err)
		}
		closeAll(got)
	}
}

func TestBadRequests(t *testing.T) {
	for _, msg := range []string{"{}\n", "rubbish\n", `{"op":"put"}` + "\n", `{"op":"put","name":"x","fds":2}` + "\n", `{"op":"get","name":"x"`, string(make([]byte, 5000))} {
		a, b := pair(t)
		a.Write([]byte(msg))
		a.CloseWrite()
		if r, _, err := ReadRequest(b); err == nil {
			t.Errorf("%.40q accepted: %+v", msg, r)
		}
	}
}
