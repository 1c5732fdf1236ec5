// Package container says what a container is: its Spec (the wish, written by the API), its Status (the fact, written by
// the engine) and the rules of its life. It knows neither containerd nor the kernel.
package container

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// Spec is the wish for one container. It never changes once the container is made, its name and networks excepted.
type Spec struct {
	ID       string    `json:"id"` // 64 hexadecimal digits
	Name     string    `json:"name"`
	Created  time.Time `json:"created"`
	Image    string    `json:"image"`   // as the user wrote it
	ImageID  string    `json:"imageID"` // sha256:… of the image's configuration
	Platform string    `json:"platform"`

	// Config is the user's, with the image's defaults filled in.
	Config     *container.Config     `json:"config"`
	HostConfig *container.HostConfig `json:"hostConfig"`
	// Networks are the wished endpoints by network name or ID, as the user wrote it. NetworkOrder gives their order.
	Networks     map[string]*network.EndpointSettings `json:"networks,omitempty"`
	NetworkOrder []string                             `json:"networkOrder,omitempty"`
	// Mounts are the binds and volumes; every volume has its name.
	Mounts []Mount `json:"mounts,omitempty"`
}

// Short is the ID as tables show it.
func (s *Spec) Short() string { return s.ID[:shortID] }

// Hostname is the name the container calls itself.
func (s *Spec) Hostname() string { return s.Config.Hostname }

// Args is the whole command: entrypoint and arguments.
func (s *Spec) Args() []string { return slices.Concat(s.Config.Entrypoint, s.Config.Cmd) }

// Status is what is true of a container now.
type Status struct {
	State      container.ContainerState `json:"state"`
	Pid        int                      `json:"pid,omitempty"`
	ExitCode   int                      `json:"exitCode"`
	OOMKilled  bool                     `json:"oomKilled,omitempty"`
	Error      string                   `json:"error,omitempty"` // why the last start failed
	StartedAt  time.Time                `json:"startedAt,omitzero"`
	FinishedAt time.Time                `json:"finishedAt,omitzero"`
	// ManuallyStopped tells a user's stop, or kill, from an exit.
	ManuallyStopped bool `json:"manuallyStopped,omitempty"`
	// RemoveVolumes says that the removal under way takes the anonymous volumes along.
	RemoveVolumes bool `json:"removeVolumes,omitempty"`
	// RestartCount is how often it was started by its restart policy since a user started it.
	RestartCount int `json:"restartCount,omitempty"`
	// Health is the health check's latest; nil without one.
	Health *container.Health `json:"health,omitempty"`
	// SandboxPath is the network namespace's file while one exists that this container owns.
	SandboxPath string     `json:"sandboxPath,omitempty"`
	Endpoints   []Endpoint `json:"endpoints,omitempty"`
}

// Running tells whether there is a live process.
func (s Status) Running() bool {
	return s.State == container.StateRunning || s.State == container.StatePaused
}

// Active tells what docker calls running: there is a live process, or there will be one as soon as the back-off is over.
func (s Status) Active() bool { return s.Running() || s.State == container.StateRestarting }

// Endpoint is one made endpoint: what joins this container's sandbox to one network.
type Endpoint struct {
	ID          string        `json:"id"`
	NetworkID   string        `json:"networkID"`
	NetworkName string        `json:"networkName"`
	Driver      string        `json:"driver"`
	Key         string        `json:"key,omitempty"` // the key of Spec.Networks it fulfils; empty: the gateway bridge
	Interface   string        `json:"interface"`
	Address     netip.Prefix  `json:"address"` // IPv4; invalid on a network without it
	Address6    netip.Prefix  `json:"address6,omitzero"`
	LinkLocal   []netip.Addr  `json:"linkLocal,omitempty"` // more addresses, as asked for
	MAC         string        `json:"mac"`
	Gateway     netip.Addr    `json:"gateway,omitzero"`
	Gateway6    netip.Addr    `json:"gateway6,omitzero"`
	Default     bool          `json:"default,omitempty"`  // its gateway is the sandbox's IPv4 default route
	Default6    bool          `json:"default6,omitempty"` // the same for IPv6
	Names       []string      `json:"names,omitempty"`    // DNS names, the first answers PTR
	Ports       []PortMapping `json:"ports,omitempty"`
	Sysctls     string        `json:"sysctls,omitempty"` // of its interface: net.X.Y.IFNAME.Z=value, with commas between
	Global      bool          `json:"global,omitempty"`  // its network is the cluster's
	// Routes and NoGateway are what its network's driver decided; Options are for the driver.
	Routes    []Route           `json:"routes,omitempty"`
	NoGateway bool              `json:"noGateway,omitempty"`
	Options   map[string]string `json:"options,omitempty"`
	DNS       DNS               `json:"dns,omitzero"` // of foreign networks: as the user wishes, else as the network says
}

// DNS is where a resolver asks, and how.
type DNS struct {
	Servers []netip.Addr `json:"servers,omitempty"`
	Search  []string     `json:"search,omitempty"`  // domains
	Options []string     `json:"options,omitempty"` // of resolv.conf(5)
}

// Route is one beyond those that an endpoint's addresses make.
type Route struct {
	To  netip.Prefix `json:"to"`
	Via netip.Addr   `json:"via,omitzero"` // invalid: on the link itself
}

// OnCluster tells whether the endpoint's network is the cluster's, not this host's alone. Older records of overlays do
// not say so.
func (e *Endpoint) OnCluster() bool { return e.Global || e.Driver == "overlay" }

// Addresses are the endpoint's addresses on its network, IPv4 first.
func (e *Endpoint) Addresses() []netip.Prefix {
	var out []netip.Prefix
	for _, p := range []netip.Prefix{e.Address, e.Address6} {
		if p.IsValid() {
			out = append(out, p)
		}
	}
	return out
}

// LeadsOutside tells whether a default route of the sandbox goes through the endpoint.
func (e *Endpoint) LeadsOutside() bool { return e.Default || e.Default6 }

// HardwareAddr is the endpoint's MAC address; nil when it has none.
func (e *Endpoint) HardwareAddr() net.HardwareAddr {
	mac, err := net.ParseMAC(e.MAC)
	if err != nil {
		return nil
	}
	return mac
}

// PortMapping is one published port.
type PortMapping struct {
	Proto         string     `json:"proto"`
	HostIP        netip.Addr `json:"hostIP,omitzero"`
	HostPort      uint16     `json:"hostPort"`
	ContainerPort uint16     `json:"containerPort"`
}

// Merge fills what the user left open from the image's configuration, by docker's rules: a given entrypoint drops the
// image's command, environment variables are taken one by one, the rest where empty.
func Merge(user *container.Config, img ocispec.ImageConfig) {
	if len(user.Entrypoint) == 0 {
		if len(user.Cmd) == 0 {
			user.Cmd = slices.Clone(img.Cmd)
		}
		if user.Entrypoint == nil {
			user.Entrypoint = slices.Clone(img.Entrypoint)
		}
	}
	// docker's CLI sends [""] for --entrypoint "": no entrypoint at all.
	if len(user.Entrypoint) == 1 && user.Entrypoint[0] == "" {
		user.Entrypoint = nil
	}
	user.Env = mergeEnv(img.Env, user.Env)
	if user.WorkingDir == "" {
		user.WorkingDir = img.WorkingDir
	}
	if user.User == "" {
		user.User = img.User
	}
	if user.StopSignal == "" {
		user.StopSignal = img.StopSignal
	}
	if len(img.Labels) > 0 {
		labels := maps.Clone(img.Labels)
		maps.Copy(labels, user.Labels)
		user.Labels = labels
	}
	for p := range img.ExposedPorts {
		if port, err := network.ParsePort(p); err == nil {
			if user.ExposedPorts == nil {
				user.ExposedPorts = network.PortSet{}
			}
			user.ExposedPorts[port] = struct{}{}
		}
	}
	for v := range img.Volumes {
		if user.Volumes == nil {
			user.Volumes = map[string]struct{}{}
		}
		user.Volumes[v] = struct{}{}
	}
}

// mergeEnv keeps the image's variables that the user did not set, then the user's.
func mergeEnv(img, user []string) []string {
	set := make(map[string]bool, len(user))
	for _, kv := range user {
		k, _, _ := strings.Cut(kv, "=")
		set[k] = true
	}
	out := make([]string, 0, len(img)+len(user))
	for _, kv := range img {
		if k, _, _ := strings.Cut(kv, "="); !set[k] {
			out = append(out, kv)
		}
	}
	for _, kv := range user {
		// A bare NAME means: unset what the image set.
		if strings.Contains(kv, "=") {
			out = append(out, kv)
		}
	}
	return out
}

// Text is the STATUS column of docker ps.
func (s Status) Text(now time.Time) string {
	switch s.State {
	case container.StateCreated:
		return "Created"
	case container.StatePaused:
		return fmt.Sprintf("Up %s (Paused)", units.HumanDuration(now.Sub(s.StartedAt)))
	case container.StateRunning:
		return "Up " + units.HumanDuration(now.Sub(s.StartedAt)) + s.healthText()
	case container.StateRestarting:
		return fmt.Sprintf("Restarting (%d) %s ago", s.ExitCode, units.HumanDuration(now.Sub(s.FinishedAt)))
	case container.StateRemoving:
		return "Removal In Progress"
	case container.StateDead:
		return "Dead"
	default:
		if s.FinishedAt.IsZero() {
			return "Created"
		}
		return fmt.Sprintf("Exited (%d) %s ago", s.ExitCode, units.HumanDuration(now.Sub(s.FinishedAt)))
	}
}

func (s Status) healthText() string {
	switch {
	case s.Health == nil:
		return ""
	case s.Health.Status == container.Starting:
		return " (health: starting)"
	}
	return " (" + string(s.Health.Status) + ")"
}
