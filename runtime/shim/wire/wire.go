// Package wire is the language between the daemon and a container's shim: the
// URI that describes the container's stdio, and the requests on its socket.
//
// The socket takes one request per connection: a line of JSON, answered by a
// line of JSON. After an attach, raw bytes follow in both directions.
package wire

import (
	"encoding/json"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
)

// Scheme is the URI scheme of the stdout that makes the shim own the stdio.
const Scheme = "minictl"

// MaxSocket is the longest socket path we use; the kernel's limit is 107.
const MaxSocket = 100

// Stdio describes a container's standard streams to its shim.
type Stdio struct {
	// Socket is the path of the unix socket that the shim listens on.
	Socket string
	// LogDir takes the JSON log; empty: no log.
	LogDir string
	// MaxSize (bytes) and MaxFiles rotate the log; 0: not at all.
	MaxSize  int64
	MaxFiles int
	// Compress the files that are full.
	Compress bool
	// Buffer is the bytes of output that may wait for the disk; 0: none, the container waits.
	Buffer int
	// Attrs are kept with each line of the log.
	Attrs map[string]string
	// TTY: one raw output stream instead of frames.
	TTY bool
	// Stdin: the container's input is open. StdinOnce: and ends with the first client's.
	Stdin, StdinOnce bool
}

// URI is s as the stdout of containerd's task request.
func (s Stdio) URI() string {
	q := url.Values{"socket": {s.Socket}}
	if s.MaxSize > 0 {
		q.Set("max-size", strconv.FormatInt(s.MaxSize, 10))
	}
	if s.MaxFiles > 0 {
		q.Set("max-files", strconv.Itoa(s.MaxFiles))
	}
	if s.Buffer > 0 {
		q.Set("buffer", strconv.Itoa(s.Buffer))
	}
	if len(s.Attrs) > 0 {
		b, _ := json.Marshal(s.Attrs) // a map of strings cannot fail
		q.Set("attrs", string(b))
	}
	for name, on := range map[string]bool{"compress": s.Compress, "tty": s.TTY, "stdin": s.Stdin, "stdin-once": s.StdinOnce} {
		if on {
			q.Set(name, "1")
		}
	}
	u := url.URL{Scheme: Scheme, Path: s.LogDir, RawQuery: q.Encode()}
	return u.String()
}

// ParseURI is the reverse of URI. ok is false when the URI is not of our scheme.
func ParseURI(uri string) (s Stdio, ok bool, err error) {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != Scheme {
		return Stdio{}, false, nil //nolint:nilerr // any other URI is somebody else's
	}
	q := u.Query()
	s = Stdio{
		Socket: q.Get("socket"), LogDir: u.Path,
		Compress: q.Has("compress"), TTY: q.Has("tty"), Stdin: q.Has("stdin"), StdinOnce: q.Has("stdin-once"),
	}
	if !filepath.IsAbs(s.Socket) || len(s.Socket) > MaxSocket {
		return Stdio{}, true, fmt.Errorf("stdio socket %q: need an absolute path of at most %d characters", s.Socket, MaxSocket)
	}
	if s.LogDir != "" && !filepath.IsAbs(s.LogDir) {
		return Stdio{}, true, fmt.Errorf("log directory %q: not absolute", s.LogDir)
	}
	if v := q.Get("max-size"); v != "" {
		if s.MaxSize, err = strconv.ParseInt(v, 10, 64); err != nil || s.MaxSize < 0 {
			return Stdio{}, true, fmt.Errorf("max-size %q: not a size in bytes", v)
		}
	}
	if v := q.Get("max-files"); v != "" {
		if s.MaxFiles, err = strconv.Atoi(v); err != nil || s.MaxFiles < 0 {
			return Stdio{}, true, fmt.Errorf("max-files %q: not a number", v)
		}
	}
	if v := q.Get("buffer"); v != "" {
		if s.Buffer, err = strconv.Atoi(v); err != nil || s.Buffer < 0 {
			return Stdio{}, true, fmt.Errorf("buffer %q: not a size in bytes", v)
		}
	}
	if v := q.Get("attrs"); v != "" {
		if err := json.Unmarshal([]byte(v), &s.Attrs); err != nil {
			return Stdio{}, true, fmt.Errorf("attrs %q: %w", v, err)
		}
	}
	return s, true, nil
}
