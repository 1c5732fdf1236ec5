package e2e

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/minictl/minictl/testing/extstore"
	"github.com/minictl/minictl/testing/lab"
)

// keyServer is a machine outside the cluster with an external store's server.
type keyServer struct {
	*lab.Host
	scheme, port string
	args         []string
	proc         *lab.Process
}

// serve starts the server, or gives nil where there is no such server.
func serve(t *testing.T, l *lab.Lab, scheme string) *keyServer {
	t.Helper()
	s := &keyServer{Host: l.Client("keys"), scheme: scheme}
	dir := filepath.Join(s.Dir(), "keys")
	var err error
	switch scheme {
	case "etcd":
		s.port = "2379"
		s.args = extstore.Etcd(dir, s.Addr().String()+":"+s.port)
	case "zk":
		s.port = "2181"
		s.args, err = extstore.ZooKeeper(dir, s.Addr().String()+":"+s.port)
	case "consul":
		s.port = "8500"
		args, ok := extstore.Consul(dir, s.Addr().String()+":"+s.port)
		if s.args = args; !ok {
			t.Skip("Consul's agent is not installed; Debian has no package of it")
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	s.start(l)
	return s
}

func (s *keyServer) start(l *lab.Lab) {
	s.proc = s.Start(s.args...)
	l.Eventually(time.Minute, func() error {
		c, err := s.Dial(deadline(), "tcp", s.Addr().String()+":"+s.port)
		if err != nil {
			return errf("%s: %w: %s", s.scheme, err, s.proc.Output())
		}
		return c.Close()
	})
}

// url is what a user types; shown is what minictl says.
func (s *keyServer) url() string   { return s.scheme + "://" + s.Addr().String() + ":" + s.port }
func (s *keyServer) shown() string { return s.url() + "/minictl" }

// TestClusterStore walks the tutorial with a store that is no part of the cluster, in the tutorial's own flags.
func TestClusterStore(t *testing.T) {
	t.Parallel()
	both := clients()
	for scheme, c := range map[string]cli{"etcd": both[0], "zk": both[1], "consul": both[0]} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel() // it mostly waits
			l := lab.New(t)
			keys := serve(t, l, scheme)
			w := &walk{t: t, l: l, c: c, laptop: keys.Host,
				h1: start(t, l, "host1", "--cluster-store="+keys.url(), "--cluster-advertise=eth0:2376"),
				h2: start(t, l, "host2", "--cluster-store="+keys.url())}
			storeMembers(t, w, keys)
			w.network()
			w.container()
			w.acrossHosts()
			w.built()
			storeAway(t, w, keys)
			storeLeave(t, w, keys)
		})
	}
}

// storeMembers: hosts find each other without init or join, and say who decides.
func storeMembers(t *testing.T, w *walk, keys *keyServer) {
	for _, h := range []*lab.Host{w.h1, w.h2} {
		// A server may have elected its leader a moment after the daemon first asked it.
		w.l.Eventually(3*soon, func() error {
			if out := w.c.must(h, "info"); !strings.Contains(out, "active") || strings.Contains(out, "inactive") {
				return errf("%s is not in the cluster yet", h.Name())
			}
			if out := w.c.must(h, "node", "ls"); strings.Count(out, "Ready") != 2 {
				return errf("%s does not see both: %s", h.Name(), out)
			}
			return nil
		})
		wantMatch(t, "node ls", w.c.must(h, "node", "ls"), `(?m)^\w{25}.*host1 +Ready`)
		wantMatch(t, "info", h.MustMinictl("info"), `(?m)^ Cluster Store: `+keys.shown()+`$`)
		wantMatch(t, "node ls", h.MustMinictl("node", "ls"), keys.scheme+` client +`+h.Addr().String()+`:7946`)
		wantMatch(t, "cluster status", h.MustMinictl("cluster", "status"), `2 hosts; `+keys.shown()+` decides on networks and addresses\.`)
		for _, args := range [][]string{{"cluster", "init"}, {"cluster", "join", "--token", "x", "192.168.66.11"}, {"cluster", "token"}} {
			fails(t, h, 1, `--cluster-store `+keys.shown(), args...)
		}
	}
}

// storeAway: without the store everything that runs goes on, also over a daemon's restart; what must be decided is
// refused by a sentence that names the store, at once.
func storeAway(t *testing.T, w *walk, keys *keyServer) {
	if err := keys.proc.Kill(); err != nil {
		t.Fatal(err)
	}
	w.l.Eventually(3*soon, func() error {
		if out := w.h1.MustMinictl("cluster", "status"); !strings.Contains(out, "nobody decides") {
			return errf("host1 has not noticed: %s", out)
		}
		return nil
	})
	fails(t, w.h1, 1, keys.shown()+` does not answer`, "network", "create", "-d", "overlay", "ov_net9")
	w.c.must(w.h1, "run", "--rm", "--network", "ov_net1", "busybox", "true") // with an address out of the host's reserve
	w.h1.StopDaemon()
	w.h1.RestartDaemon()
	wantMatch(t, "network ls without the store", w.c.must(w.h1, "network", "ls"), `ov_net1 +overlay +global`)
	for h, ping := range map[*lab.Host][]string{w.h1: {"bbox1", "bbox2"}, w.h2: {"bbox2", "bbox1"}} {
		w.l.Eventually(soon, func() error {
			if out, errOut, code := w.c.try(h, "exec", ping[0], "ping", "-c", "1", "-W", "1", ping[1]); code != 0 {
				return errf("%s does not reach %s: %s%s", ping[0], ping[1], out, errOut)
			}
			return nil
		})
	}
	keys.start(w.l)
	w.l.Eventually(6*soon, func() error {
		if _, errOut, code := w.c.try(w.h1, "network", "create", "-d", "overlay", "ov_net2"); code != 0 {
			return errf("host1 has not noticed that the store is back: %s", errOut)
		}
		return nil
	})
	w.l.Eventually(6*soon, func() error {
		if out := w.h2.MustMinictl("cluster", "status"); strings.Contains(out, "nobody decides") {
			return errf("host2 has not noticed that the store is back: %s", out)
		}
		return nil
	})
	wantMatch(t, "an address on host2, in order", w.c.must(w.h2, "run", "--rm", "--network", "ov_net1", "busybox", "ip", "r"), `src 10\.0\.0\.4`)
	wantMatch(t, "ov_net2 on host2", w.c.must(w.h2, "network", "inspect", "ov_net2"), `10\.0\.1\.0/24`)
}

// storeLeave: a host that leaves is gone from the store; one that is gone for good is removed; another kind of store is
// refused with what to type.
func storeLeave(t *testing.T, w *walk, keys *keyServer) {
	w.c.must(w.h2, "rm", "-f", "bbox2")
	w.h2.StopDaemon()
	fails(t, w.h2, 1, `--cluster-store`, "daemon")
	w.h2.RestartDaemon()
	wantMatch(t, "leave", w.h2.MustMinictl("cluster", "leave"), `--cluster-store `+keys.shown()+` comes into it again`)
	w.l.Eventually(soon, func() error {
		if out := w.c.must(w.h1, "node", "ls"); strings.Contains(out, "host2") {
			return errf("host2 is still listed: %s", out)
		}
		return nil
	})
	w.h2.StopDaemon()
	w.h2.RestartDaemon()
	wantMatch(t, "node ls after coming again", w.c.must(w.h1, "node", "ls"), `host2 +Ready`)
	w.h2.KillDaemon()
	w.l.Eventually(3*soon, func() error {
		_, errOut, code := w.c.try(w.h1, "node", "rm", "host2") // refused while it is thought alive
		if code != 0 {
			return errf("node rm: %s", errOut)
		}
		return nil
	})
	if out := w.c.must(w.h1, "node", "ls"); strings.Contains(out, "host2") {
		t.Errorf("host2 is still listed: %s", out)
	}
}
