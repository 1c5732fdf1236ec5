package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// socketGroup is who may talk to the daemon besides root.
const socketGroup = "minictl"

// listen opens the API's sockets.
func listen(hosts []string, log *slog.Logger) ([]net.Listener, error) {
	var out []net.Listener
	for _, h := range hosts {
		l, err := listenOn(h, log)
		if err != nil {
			return nil, errors.Join(err, closeAll(out))
		}
		out = append(out, l)
	}
	return out, nil
}

func closeAll(listeners []net.Listener) error {
	var errs []error
	for _, l := range listeners {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

func listenOn(host string, log *slog.Logger) (net.Listener, error) {
	proto, addr, _ := strings.Cut(host, "://")
	switch proto {
	case "unix":
		return listenUnix(addr, log)
	case "tcp":
		return nil, fmt.Errorf("listen on %s: minictl does not serve its API over TCP yet: use unix:///PATH", host)
	}
	return nil, fmt.Errorf("listen on %q: want unix:///PATH", host)
}

// listenUnix opens root:minictl 0660. A socket nobody listens on is what a killed daemon left: it is replaced. The
// folder lock has ruled out a live daemon of the same folders; one of others is asked before its socket is taken.
func listenUnix(path string, log *slog.Logger) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if c, err := net.Dial("unix", path); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("listen on unix://%s: another daemon answers there: give this one another --host", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on unix://%s: %w", path, err)
	}
	gid := 0
	if g, err := user.LookupGroup(socketGroup); err == nil {
		gid, _ = strconv.Atoi(g.Gid)
	} else {
		log.Debug("only root may use the socket: there is no group", "group", socketGroup)
	}
	if err := errors.Join(os.Chown(path, 0, gid), os.Chmod(path, 0o660)); err != nil {
		return nil, errors.Join(fmt.Errorf("protect %s: %w", path, err), l.Close())
	}
	return l, nil
}
