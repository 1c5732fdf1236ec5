// Package remote has networks and addresses made by other programs: it speaks libnetwork's plugin protocol, JSON over HTTP,
// to whatever has put a socket where docker looks for it.
//
// A plugin keeps books of its own. It is told of each network and endpoint once and asked to forget it once, so the
// driver remembers what it has told; whoever starts a daemon anew has to say what an earlier one told (Adopt). All that
// comes from a plugin is checked before it is used: it may say anything.
package remote

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/go-connections/tlsconfig"
)

// Where docker looks for plugins.
const (
	SocketDir = "/run/docker/plugins"
	specDir   = "/etc/docker/plugins"
	vendorDir = "/usr/lib/docker/plugins"
)

// SpecDirs are the folders of files that say where a plugin listens, those of the administrator first.
func SpecDirs() []string { return []string{specDir, vendorDir} }

// Config is what New needs.
type Config struct {
	Log       *slog.Logger
	Sockets   string   // folder of plugins' sockets
	Specs     []string // folders of files that name their addresses
	Sandboxes string   // the folder of all sandboxes, where endpoints are looked for
	Patience  time.Duration
}

// patience is how long a plugin may take over one call, retries included: what docker's client gives it.
const patience = 30 * time.Second

// Plugins are the programs that speak the protocol, by name.
type Plugins struct {
	cfg Config
	log *slog.Logger

	mu      sync.Mutex
	plugins map[string]*plugin
	drivers map[string]*Driver
}

// New looks for no plugin yet: each is called when it is needed first.
func New(c Config) *Plugins {
	if c.Patience == 0 {
		c.Patience = patience
	}
	return &Plugins{cfg: c, log: c.Log.With("component", "plugins"), plugins: map[string]*plugin{}, drivers: map[string]*Driver{}}
}

// Driver gives the network driver of that name, whether or not its plugin is there now.
func (p *Plugins) Driver(name string) *Driver {
	pl := p.plugin(name)
	p.mu.Lock()
	defer p.mu.Unlock()
	d, ok := p.drivers[name]
	if !ok {
		d = newDriver(p.cfg, pl)
		p.drivers[name] = d
	}
	return d
}

// Drivers are the network drivers that have been asked for.
func (p *Plugins) Drivers() []*Driver {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []*Driver
	for _, d := range p.drivers {
		out = append(out, d)
	}
	return out
}

// Allocator gives the address manager of that name, whether or not its plugin is there now.
func (p *Plugins) Allocator(name string) *Allocator { return &Allocator{plugin: p.plugin(name)} }

func (p *Plugins) plugin(name string) *plugin {
	p.mu.Lock()
	defer p.mu.Unlock()
	pl, ok := p.plugins[name]
	if !ok {
		pl = &plugin{name: name, cfg: p.cfg, log: p.log.With("plugin", name)}
		p.plugins[name] = pl
	}
	return pl
}

// Present tells whether a plugin of that name can be found; ErrNotFound says where it was looked for. It is not called.
func (p *Plugins) Present(name string) error {
	_, err := locate(p.cfg, name)
	return err
}

// place is where a plugin listens.
type place struct {
	network, addr string      // as net.Dial wants them
	tls           *tls.Config // nil: in the clear
}

// String is what a user would write into a .spec file.
func (p place) String() string { return p.network + "://" + p.addr }

// locate finds a plugin by docker's rules: NAME.sock or NAME/NAME.sock among the sockets, then NAME.spec and NAME.json, in
// each folder or one of its own.
func locate(c Config, name string) (place, error) {
	missing := fmt.Errorf("plugin %q not found: there is no socket %s and no %s.spec or %s.json in %s: %w",
		name, filepath.Join(c.Sockets, name+".sock"), name, name, strings.Join(c.Specs, " or "), errdefs.ErrNotFound)
	if !validName(name) {
		return place{}, missing
	}
	for _, p := range candidates(c.Sockets, name, ".sock") {
		if fi, err := os.Stat(p); err == nil && fi.Mode()&os.ModeSocket != 0 {
			return place{network: "unix", addr: p}, nil
		}
	}
	for _, dir := range c.Specs {
		for _, ext := range []string{".spec", ".json"} {
			for _, p := range candidates(dir, name, ext) {
				text, err := readSmall(p)
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				if err != nil {
					return place{}, fmt.Errorf("read where plugin %s listens: %w", name, err)
				}
				at, err := parseSpec(text, ext == ".json")
				if err != nil {
					return place{}, fmt.Errorf("%s: %w", p, err)
				}
				return at, nil
			}
		}
	}
	return place{}, missing
}

// validName keeps names inside their folders.
func validName(name string) bool {
	return name != "" && name[0] != '.' && len(name) < 128 && !strings.ContainsAny(name, "/\\\x00")
}

func candidates(dir, name, ext string) []string {
	return []string{filepath.Join(dir, name+ext), filepath.Join(dir, name, name+ext)}
}

// maxSpec bounds a file that says where a plugin listens, in bytes.
const maxSpec = 64 << 10

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSpec+1))
	if err == nil && len(text) > maxSpec {
		err = fmt.Errorf("%s has more than %d bytes", path, maxSpec)
	}
	return text, err
}

// parseSpec reads an address alone, or docker's JSON of an address and how to trust it. As with docker, a JSON file
// without a CAFile trusts whoever answers.
func parseSpec(text []byte, isJSON bool) (place, error) {
	spec := struct {
		Addr      string
		TLSConfig struct {
			InsecureSkipVerify        bool
			CAFile, CertFile, KeyFile string
		}
	}{Addr: strings.TrimSpace(string(text))}
	if isJSON {
		spec.Addr = ""
		if err := json.Unmarshal(text, &spec); err != nil {
			return place{}, fmt.Errorf("no JSON that names an Addr: %w", err)
		}
	}
	u, err := url.Parse(spec.Addr)
	if err != nil {
		return place{}, fmt.Errorf("address %q: %w", spec.Addr, err)
	}
	switch {
	case u.Scheme == "unix" && u.Host == "" && filepath.IsAbs(u.Path):
		return place{network: "unix", addr: u.Path}, nil
	case (u.Scheme == "tcp" || u.Scheme == "http") && u.Host != "":
		return place{network: "tcp", addr: u.Host}, nil
	case u.Scheme == "https" && u.Host != "":
		c, err := tlsconfig.Client(tlsconfig.Options{
			CAFile: spec.TLSConfig.CAFile, CertFile: spec.TLSConfig.CertFile, KeyFile: spec.TLSConfig.KeyFile,
			InsecureSkipVerify: spec.TLSConfig.InsecureSkipVerify || spec.TLSConfig.CAFile == "",
		})
		return place{network: "tcp", addr: u.Host, tls: c}, err
	}
	return place{}, fmt.Errorf("address %q: it must be unix:///PATH, tcp://HOST:PORT or https://HOST:PORT: %w", spec.Addr, errdefs.ErrInvalidArgument)
}

// sleep waits, unless ctx ends before.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
