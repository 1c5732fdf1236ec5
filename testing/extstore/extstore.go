// Package extstore starts the real servers of the external cluster stores for
// tests: etcd and ZooKeeper as `make deps` unpacks them from Debian's packages,
// Consul where its agent is installed.
package extstore

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// patience bounds the wait for a server's first answer; a Java program on a busy machine takes its time.
const patience = 60 * time.Second

// bin is where make deps has unpacked a file.
func bin(name string) string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "..", "..", "bin", name)
}

// Etcd is the command line of an etcd that keeps its data in dir and answers at host:port.
func Etcd(dir, addr string) []string {
	const peer = "http://127.0.0.1:0" // it is alone
	return []string{bin("etcd"), "--data-dir", dir, "--listen-client-urls", "http://" + addr, "--advertise-client-urls", "http://" + addr,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer}
}

// ZooKeeper is the same for ZooKeeper; its configuration is written into dir.
func ZooKeeper(dir, addr string) ([]string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "zoo.cfg")
	text := fmt.Sprintf("tickTime=2000\ndataDir=%s\nclientPort=%s\nclientPortAddress=%s\nadmin.enableServer=false\n", dir, port, host)
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(conf, []byte(text), 0o644)); err != nil {
		return nil, err
	}
	// No more of the compiler than must be: a server of a few keys does not earn its time. Java trips over the cgroups of
	// a namespace that has its own root of them.
	return []string{"java", "-Xmx96m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UseContainerSupport", "-Dzookeeper.forceSync=no", "-cp", bin("zookeeper") + "/*",
		"org.apache.zookeeper.server.ZooKeeperServerMain", conf}, nil
}

// Consul is the same for Consul's agent; ok is false where there is none, for Debian has no package of it.
func Consul(dir, addr string) (args []string, ok bool) {
	program := bin("consul")
	if _, err := os.Stat(program); err != nil {
		if program, err = exec.LookPath("consul"); err != nil {
			return nil, false
		}
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, false
	}
	return []string{program, "agent", "-server", "-bootstrap-expect", "1", "-data-dir", dir, "-bind", host, "-client", host, "-http-port", port,
		"-grpc-port", "-1", "-grpc-tls-port", "-1", "-dns-port", "-1", "-server-port", freePort(), "-serf-lan-port", freePort(), "-serf-wan-port", "-1",
		"-disable-host-node-id", "-disable-keyring-file", "-log-level", "warn"}, true
}

// FreeAddr is an address on loopback that nobody listens on.
func FreeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// freePort is one for a server that will not choose by itself.
func freePort() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "0" // which the server refuses
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// Start runs a server until the test ends, and waits until it listens at addr.
func Start(t testing.TB, addr string, args ...string) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	log, err := os.Create(filepath.Join(t.TempDir(), "server.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	err = cmd.Start()
	if err != nil && os.Getenv("CI") != "true" {
		t.Skipf("start %s: %v: run make deps", args[0], err)
	}
	if err != nil {
		t.Fatalf("start %s: %v: run make deps", args[0], err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("%s:\n%s", args[0], b[max(0, len(b)-4000):])
		}
	})
	deadline := time.After(patience)
	for {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-ended:
			t.Fatalf("%s ended instead of listening at %s", args[0], addr)
		case <-deadline:
			t.Fatalf("%s does not listen at %s: %v", args[0], addr, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
