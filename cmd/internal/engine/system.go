package engine

import (
	"context"
	"encoding/pem"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
	"golang.org/x/sys/unix"

	"github.com/minictl/minictl/netdriver/ipam"
	"github.com/minictl/minictl/runtime/oci"
)

// Versions of the Engine API that are answered.
const (
	apiVersion    = "1.51"
	minAPIVersion = "1.24"
)

// Version is docker version's server half.
func (e *Engine) Version(ctx context.Context) (system.VersionResponse, error) {
	commit, built := built()
	v := system.VersionResponse{
		Platform: system.PlatformInfo{Name: "minictl"}, Version: e.cfg.Version, APIVersion: apiVersion, MinAPIVersion: minAPIVersion,
		Os: runtime.GOOS, Arch: runtime.GOARCH, GoVersion: runtime.Version(), KernelVersion: kernelVersion(),
		GitCommit: commit, BuildTime: built,
		Components: []system.ComponentVersion{
			{Name: "Engine", Version: e.cfg.Version, Details: map[string]string{
				"ApiVersion": apiVersion, "MinAPIVersion": minAPIVersion, "Os": runtime.GOOS, "Arch": runtime.GOARCH,
				"GoVersion": runtime.Version(), "KernelVersion": kernelVersion(), "Experimental": "false",
				"GitCommit": commit, "BuildTime": built,
			}},
		},
	}
	if e.cfg.Witness {
		return v, nil
	}
	v.Components = append(v.Components, system.ComponentVersion{Name: "containerd", Version: e.rt.Version()})
	if r := e.rt.RuncVersion(ctx); r != "" {
		v.Components = append(v.Components, system.ComponentVersion{Name: "runc", Version: r})
	}
	return v, nil
}

// built tells which commit this program was made of and the time of that commit (RFC 3339); empty where the build did
// not know.
func built() (commit, at string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", ""
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value
		case "vcs.time":
			at = s.Value
		}
	}
	return commit, at
}

func kernelVersion() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// Info is docker info.
func (e *Engine) Info(ctx context.Context) (system.Info, error) {
	if e.cfg.Witness {
		return e.witnessInfo(ctx), nil
	}
	images, err := e.rt.Images(ctx)
	if err != nil {
		return system.Info{}, err
	}
	var live Live
	if e.cfg.Live != nil {
		live = e.cfg.Live()
	}
	i := system.Info{
		ID: e.id, Name: e.cfg.NodeName, ServerVersion: e.cfg.Version, Images: len(images), Driver: "overlayfs",
		Plugins:     system.PluginsInfo{Volume: []string{"local"}, Network: e.networkDrivers(ctx), Log: []string{"json-file", "local", "none"}},
		MemoryLimit: true, SwapLimit: !slices.Contains(e.cfg.Host.Missing, oci.FlagMemorySwap), CPUCfsPeriod: true, CPUCfsQuota: true, CPUShares: true, CPUSet: true, PidsLimit: true,
		IPv4Forwarding: true, Debug: live.Debug, Labels: append([]string{}, live.Labels...), NGoroutines: runtime.NumGoroutine(), SystemTime: time.Now().Format(time.RFC3339Nano),
		LoggingDriver: e.cfg.DefaultLog.Type, CgroupDriver: "cgroupfs", CgroupVersion: "1", KernelVersion: kernelVersion(), OSType: runtime.GOOS,
		OperatingSystem: operatingSystem(), Architecture: machine(), NCPU: runtime.NumCPU(), MemTotal: memoryTotal(), DockerRootDir: e.cfg.Root,
		IndexServerAddress: "https://index.docker.io/v1/", RegistryConfig: registryConfig(e.cfg.Registries), LiveRestoreEnabled: true,
		Runtimes: map[string]system.RuntimeWithStatus{"runc": {Runtime: system.Runtime{Path: "runc"}}}, DefaultRuntime: "runc",
		SecurityOptions: []string{"name=seccomp,profile=builtin"}, FirewallBackend: &system.FirewallInfo{Driver: "nftables"},
		// Docker has commits here; clients show whatever it is as the version.
		InitBinary: "minictl-init", InitCommit: system.Commit{ID: e.cfg.Version}, ContainerdCommit: system.Commit{ID: e.rt.Version()}, RuncCommit: system.Commit{ID: e.rt.RuncVersion(ctx)},
		DriverStatus: [][2]string{{"driver-type", "io.containerd.snapshotter.v1"}}, CDISpecDirs: []string{},
		Swarm: e.swarmInfo(ctx), Warnings: append(e.drift.warnings(), e.pluginWarnings(ctx)...), Isolation: mobycontainer.IsolationEmpty,
	}
	if e.cfg.Host.CgroupV2 {
		i.CgroupVersion = "2"
	}
	if e.cfg.Host.AppArmor != "" {
		i.SecurityOptions = append([]string{"name=apparmor"}, i.SecurityOptions...)
	}
	i.OomKillDisable = !slices.Contains(e.cfg.Host.Missing, oci.FlagOomKillDisable)
	for _, b := range e.all() {
		i.Containers++
		switch st := b.statusCopy(); {
		case st.State == mobycontainer.StatePaused:
			i.ContainersPaused++
		case st.Running():
			i.ContainersRunning++
		default:
			i.ContainersStopped++
		}
	}
	return i, nil
}

// swarmInfo shows our cluster where docker's clients look for theirs.
func (e *Engine) swarmInfo(ctx context.Context) swarm.Info {
	if !e.cl.Clustered() {
		return swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive, RemoteManagers: []swarm.Peer{}}
	}
	self := e.cl.Self()
	s := swarm.Info{
		NodeID: string(self.ID), NodeAddr: self.Addr.Addr().String(), LocalNodeState: swarm.LocalNodeStateActive, ControlAvailable: true,
		Cluster: &swarm.ClusterInfo{ID: e.cl.ID(), TLSInfo: e.tlsInfo(ctx)},
	}
	if p, ok, err := chosenPools(ctx, e.cl.Store(), false); err == nil && ok {
		s.Cluster.DefaultAddrPool, s.Cluster.SubnetSize = p.Bases, uint32(p.Bits)
	} else {
		for _, b := range ipam.DefaultOverlay() {
			s.Cluster.DefaultAddrPool, s.Cluster.SubnetSize = append(s.Cluster.DefaultAddrPool, b.Base), uint32(b.Size)
		}
	}
	s.Cluster.DataPathPort = uint32(self.DataPathPort)
	for _, m := range e.cl.Members() {
		s.Nodes++
		s.Managers++ // any host takes any command
		s.RemoteManagers = append(s.RemoteManagers, swarm.Peer{NodeID: string(m.ID), Addr: m.Addr.String()})
	}
	return s
}

// tlsInfo is what docker shows of the certificate that all hosts trust.
func (e *Engine) tlsInfo(ctx context.Context) swarm.TLSInfo {
	ca, err := e.cl.Authority(ctx)
	if ca == nil || err != nil {
		return swarm.TLSInfo{}
	}
	return swarm.TLSInfo{
		TrustRoot:         string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw})),
		CertIssuerSubject: ca.RawSubject, CertIssuerPublicKey: ca.RawSubjectPublicKeyInfo,
	}
}

// SwarmState is /_ping's word for the cluster.
func (e *Engine) SwarmState(context.Context) string {
	if e.cl.Clustered() {
		return "active/manager"
	}
	return "inactive"
}

func operatingSystem() string {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "Linux"
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return strings.Trim(v, `"`)
		}
	}
	return "Linux"
}

func machine() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return runtime.GOARCH
	}
	return unix.ByteSliceToString(u.Machine[:])
}

// memoryTotal is the machine's memory in bytes.
func memoryTotal() int64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) >= 2 && f[0] == "MemTotal:" {
			kib, _ := strconv.ParseInt(f[1], 10, 64)
			return kib << 10
		}
	}
	return 0
}
