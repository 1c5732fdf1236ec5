package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/minictl/minictl/testing/lab"
)

// peerDir is where peer.sh unpacks Debian's Docker Engine.
const peerDir = "bin/peer"

// The state that a lab's host keeps on the real disk, where overlayfs works.
const (
	peerState     = "/var/lib/minictl"
	peerSocket    = "/run/docker.sock"
	peerContainer = "/run/containerd/containerd.sock"
)

// peerPatience bounds the start of the two daemons on a busy machine.
const peerPatience = 2 * time.Minute

// containerdConfig leaves out what docker does not use, some of which would not start.
const containerdConfig = `version = 2
root = "` + peerState + `/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "` + peerContainer + `"
`

// peer is docker on two hosts that are a swarm, with an attachable overlay and the busybox image; nil when there is none to
// be had, or none is wanted. Made once.
func (b *bench) peer() (*engine, error) {
	if !b.docker || b.dockerGone != "" || b.dockerEngine != nil {
		return b.dockerEngine, nil
	}
	dir, err := filepath.Abs(peerDir)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, "usr/sbin/dockerd")); errors.Is(err, fs.ErrNotExist) {
		b.dockerGone = "there is no Docker Engine in " + peerDir + " (make bench-deps)"
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	first, err := startPeer(b.lab.Host("docker1"), dir)
	if err != nil {
		return nil, err
	}
	second, err := startPeer(b.lab.Host("docker2"), dir)
	if err != nil {
		return nil, err
	}
	if err := swarm(first, second); err != nil {
		return nil, err
	}
	b.dockerEngine, b.dockerSecond = first, second
	return first, nil
}

// startPeer brings containerd and dockerd up on a host and loads the image.
func startPeer(h *lab.Host, dir string) (*engine, error) {
	config := filepath.Join(h.Dir(), "containerd.toml")
	if err := os.WriteFile(config, []byte(containerdConfig), 0o644); err != nil {
		return nil, err
	}
	// The programs find each other, their libraries and iptables' extensions below dir.
	libs, err := filepath.Glob(filepath.Join(dir, "usr/lib/*-linux-gnu*"))
	if err != nil {
		return nil, err
	}
	if len(libs) != 1 {
		return nil, fmt.Errorf("docker's libraries: want one folder of them in %s, found %q", dir, libs)
	}
	lib := libs[0]
	env := []string{
		"env", "PATH=" + strings.Join([]string{dir + "/bin", dir + "/usr/sbin", dir + "/usr/bin", os.Getenv("PATH"), "/usr/sbin", "/sbin"}, ":"),
		"LD_LIBRARY_PATH=" + lib, "XTABLES_LIBDIR=" + filepath.Join(lib, "xtables"),
	}
	containerd := h.Start(append(env, "containerd", "-c", config)...)
	if err := awaitFile(h.Path(peerContainer)); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, containerd.Output())
	}
	dockerd := h.Start(append(env, "dockerd", "-H", "unix://"+peerSocket, "--data-root", peerState+"/docker",
		"--containerd", peerContainer, "--storage-driver", "overlay2", "--exec-opt", "native.cgroupdriver=cgroupfs")...)
	e := &engine{
		name: "docker", dir: dir, host: h, socket: h.Path(peerSocket), runc: "/run/docker/runtime-runc/moby", pids: func() []int { return []int{containerd.Pid(), dockerd.Pid()} },
		client: client{bin: filepath.Join(dir, "usr/bin/docker"), args: []string{"-H", "unix://" + h.Path(peerSocket)}, config: h.Dir()},
	}
	ctx, cancel := context.WithTimeout(context.Background(), peerPatience)
	defer cancel()
	err = await(ctx, func() error {
		_, err := e.run("version")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("docker on %s: %w\n%s", h.Name(), err, dockerd.Output())
	}
	_, err = e.run("load", "-q", "-i", "bin/images/busybox.tar")
	return e, err
}

// swarm joins docker's two hosts and makes the overlay.
func swarm(first, second *engine) error {
	if _, err := first.run("swarm", "init", "--advertise-addr", first.host.Addr().String()); err != nil {
		return err
	}
	token, err := first.run("swarm", "join-token", "-q", "worker")
	if err != nil {
		return err
	}
	if _, err := second.run("swarm", "join", "--token", strings.TrimSpace(token.out), first.host.Addr().String()+":2377"); err != nil {
		return err
	}
	_, err = first.run("network", "create", "-d", "overlay", "--attachable", overlay)
	return err
}

// awaitFile waits until a file is there.
func awaitFile(path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), peerPatience)
	defer cancel()
	return await(ctx, func() error {
		_, err := os.Stat(path)
		return err
	})
}

// await asks every 50 ms until the answer is nil.
func await(ctx context.Context, ask func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}
