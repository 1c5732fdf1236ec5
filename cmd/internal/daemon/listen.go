package daemon

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"github.com/coreos/go-systemd/v22/activation"

	"github.com/minictl/minictl/cmd/internal/config"
)

// listen opens the API's sockets.
func listen(cfg config.Config, log *slog.Logger) ([]net.Listener, error) {
	hosts, err := cfg.Listeners()
	if err != nil {
		return nil, err
	}
	secured, err := cfg.TLS.Server()
	if err != nil {
		return nil, err
	}
	o := opener{cfg: cfg, tls: secured, log: log}
	var out []net.Listener
	for _, h := range hosts {
		l, err := o.open(h)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("listen on %s: %w", h, err), closeAll(out))
		}
		out = append(out, l...)
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

// opener opens one host after the other.
type opener struct {
	cfg config.Config
	tls *tls.Config // nil: plain text
	log *slog.Logger
}

func (o opener) open(h config.Host) ([]net.Listener, error) {
	switch h.Proto {
	case "unix":
		l, err := listenUnix(h.Addr, o.cfg.Group, o.log)
		return []net.Listener{l}, err
	case "tcp":
		l, err := net.Listen("tcp", h.Addr)
		if err != nil {
			return nil, err
		}
		return []net.Listener{o.secure(l)}, nil
	}
	return o.inherited(h.Addr)
}

// secure wraps a TCP listener as configured.
func (o opener) secure(l net.Listener) net.Listener {
	if o.tls != nil {
		return tls.NewListener(l, o.tls)
	}
	o.log.Warn("the API is served in plain text: whoever reaches it is root on this host", "host", "tcp://"+l.Addr().String())
	return l
}

// inherited takes the sockets over that systemd opened (sd_listen_fds(3)): those of a name, or all.
func (o opener) inherited(name string) ([]net.Listener, error) {
	byName, err := activation.ListenersWithNames()
	if err != nil {
		return nil, err
	}
	var out []net.Listener
	for n, list := range byName {
		for _, l := range list {
			switch {
			case l == nil: // not a stream socket
			case name != "" && n != name:
				_ = l.Close()
			case l.Addr().Network() == "tcp":
				if err := o.cfg.TLS.Protects(l.Addr().String()); err != nil {
					return nil, errors.Join(fmt.Errorf("socket %s: %w", l.Addr(), err), closeAll(out))
				}
				out = append(out, o.secure(l))
			default:
				out = append(out, l)
			}
		}
	}
	if len(out) == 0 {
		return nil, errors.New("systemd passed no such socket: start the daemon through its socket unit, or serve on unix:///PATH")
	}
	return out, nil
}

// listenUnix opens root:GROUP 0660. A socket nobody listens on is what a killed daemon left: it is replaced. The
// folder lock has ruled out a live daemon of the same folders; one of others is asked before its socket is taken.
func listenUnix(path, group string, log *slog.Logger) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if c, err := net.Dial("unix", path); err == nil {
		_ = c.Close()
		return nil, errors.New("another daemon answers there: give this one another --host")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	gid := 0
	if g, err := user.LookupGroup(group); err == nil {
		gid, _ = strconv.Atoi(g.Gid)
	} else {
		log.Debug("only root may use the socket: there is no group", "group", group)
	}
	if err := errors.Join(os.Chown(path, 0, gid), os.Chmod(path, 0o660)); err != nil {
		return nil, errors.Join(fmt.Errorf("protect %s: %w", path, err), l.Close())
	}
	return l, nil
}
