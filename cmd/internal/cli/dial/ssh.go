package dial

import (
	"context"
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/docker/cli/cli/connhelper/commandconn"
	"github.com/docker/cli/cli/connhelper/ssh"
	"golang.org/x/sys/unix"
)

// sshDialer runs "minictl system dial-stdio" on the other host for each connection, as docker's client runs docker's.
// The user's own ssh configuration, keys and agent are used. A path in the URL names the daemon's socket there.
func sshDialer(u *url.URL) (func(ctx context.Context, network, addr string) (net.Conn, error), error) {
	spec, err := ssh.NewSpec(u)
	if err != nil {
		return nil, err
	}
	remote := []string{"minictl", "system", "dial-stdio"}
	if strings.Trim(spec.Path, "/") != "" {
		remote = []string{"minictl", "--host=unix://" + spec.Path, "system", "dial-stdio"}
	}
	args, err := spec.Command([]string{"-o", "ConnectTimeout=30", "-T"}, remote...)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, err := commandconn.New(ctx, "ssh", args...)
		if err != nil {
			return nil, err
		}
		return sshConn{c.(halfCloser)}, nil
	}, nil
}

type halfCloser interface {
	net.Conn
	CloseRead() error
	CloseWrite() error
}

// sshConn says why ssh has ended also when it did so before it was written to: only reading tells.
type sshConn struct{ halfCloser }

func (c sshConn) Write(b []byte) (int, error) {
	n, err := c.halfCloser.Write(b)
	if errors.Is(err, unix.EPIPE) {
		if _, why := c.Read(make([]byte, 1)); why != nil {
			err = why
		}
	}
	return n, err
}

// RemoteError is what ssh or the program on the other host said, in one line, out of the client's error for a connection
// over ssh.
func RemoteError(err error) (string, bool) {
	_, said, ok := strings.Cut(err.Error(), "stderr=")
	var lines []string
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(strings.TrimPrefix(line, "minictl: "))
		if line != "" && !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; "), ok
}
