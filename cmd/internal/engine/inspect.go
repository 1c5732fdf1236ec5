package engine

import (
	"cmp"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/runtime/container"
	"github.com/minictl/minictl/runtime/logs"
	"github.com/minictl/minictl/runtime/oci"
)

// ContainerInspect is everything about one container, in docker's form.
func (e *Engine) ContainerInspect(ctx context.Context, ref string, size bool) (mobycontainer.InspectResponse, error) {
	b, err := e.find(ref)
	if err != nil {
		return mobycontainer.InspectResponse{}, err
	}
	s, st := b.specCopy(), b.statusCopy()
	args := s.Args()
	r := mobycontainer.InspectResponse{
		ID: s.ID, Created: s.Created.Format(time.RFC3339Nano), Path: args[0], Args: args[1:], Image: s.ImageID, Name: "/" + s.Name,
		ResolvConfPath: filepath.Join(e.dir(s.ID), "resolv.conf"), HostnamePath: filepath.Join(e.dir(s.ID), "hostname"),
		HostsPath: filepath.Join(e.dir(s.ID), "hosts"), LogPath: e.logPath(&s), Driver: "overlayfs", Platform: s.Platform,
		HostConfig: s.HostConfig, Config: s.Config, Mounts: e.mountPoints(&s), ExecIDs: e.execIDs(s.ID),
		RestartCount: st.RestartCount, AppArmorProfile: e.appArmor(&s),
		State: &mobycontainer.State{
			Status: st.State, Running: st.Active(), Paused: st.State == mobycontainer.StatePaused,
			Restarting: st.State == mobycontainer.StateRestarting, Health: st.Health, Dead: st.State == mobycontainer.StateDead,
			OOMKilled: st.OOMKilled, Pid: st.Pid, ExitCode: st.ExitCode, Error: st.Error, StartedAt: stamp(st.StartedAt), FinishedAt: stamp(st.FinishedAt),
		},
		NetworkSettings: &mobycontainer.NetworkSettings{
			SandboxKey: st.SandboxPath, Ports: e.portMap(&s, &st), Networks: endpointSettings(&s, &st),
		},
	}
	if st.SandboxPath != "" {
		r.NetworkSettings.SandboxID = s.ID
	}
	if size {
		own, whole := e.containerSizes(ctx, &s)
		r.SizeRw, r.SizeRootFs = &own, &whole
	}
	return r, nil
}

// logPath is the file being written, which docker shows for its json-file driver alone.
func (e *Engine) logPath(s *container.Spec) string {
	if s.HostConfig.LogConfig.Type != container.LogJSON {
		return ""
	}
	return logs.Path(e.logDir(s.ID))
}

func (e *Engine) appArmor(s *container.Spec) string {
	sec, err := container.NewSecurity(s.HostConfig.SecurityOpt)
	if err != nil {
		return "" // create would have refused it
	}
	return oci.AppArmor(s.HostConfig, sec, e.cfg.Host)
}

// stamp is docker's form of a moment, the zero one included.
func stamp(t time.Time) string { return t.Format(time.RFC3339Nano) }

// execIDs are the execs that have not ended.
func (e *Engine) execIDs(containerID string) []string {
	e.mu.RLock()
	defer e.mu.RUnlock()
	var out []string
	for id, x := range e.execs {
		if x.containerID == containerID && !x.endedBefore(time.Now().Add(time.Hour)) {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// bindings are how docker shows a port: one that is published on every address is shown once for each family by which it
// is reached. By IPv6 a container is reached that has none as well, see netdriver/portmap's Relay, where the host has it.
func (e *Engine) bindings(ep *container.Endpoint, m container.PortMapping) []netip.Addr {
	if m.HostIP.IsValid() {
		return []netip.Addr{m.HostIP}
	}
	var out []netip.Addr
	if ep.Address.IsValid() {
		out = append(out, netip.IPv4Unspecified())
	}
	if e.reachedBySix(ep, m) {
		out = append(out, netip.IPv6Unspecified())
	}
	return out
}

// hostHasIPv6 tells whether any interface of the host, loopback included, has an IPv6 address.
func hostHasIPv6() bool {
	b, err := os.ReadFile("/proc/net/if_inet6")
	return err == nil && len(b) > 0
}

func (e *Engine) portMap(s *container.Spec, st *container.Status) network.PortMap {
	out := network.PortMap{}
	for p := range s.Config.ExposedPorts {
		out[p] = nil
	}
	for _, ep := range st.Endpoints {
		for _, m := range ep.Ports {
			p, _ := network.PortFrom(m.ContainerPort, network.IPProtocol(m.Proto))
			if m.HostPort == 0 { // open at the container's own address: the host has no part in it
				out[p] = append(out[p], network.PortBinding{})
				continue
			}
			for _, ip := range e.bindings(&ep, m) {
				out[p] = append(out[p], network.PortBinding{HostIP: ip, HostPort: strconv.Itoa(int(m.HostPort))})
			}
		}
	}
	return out
}

// endpointSettings are the wished endpoints with what is true of them now.
func endpointSettings(s *container.Spec, st *container.Status) map[string]*network.EndpointSettings {
	out := map[string]*network.EndpointSettings{}
	for key, set := range s.Networks {
		c := set.Copy()
		if key != network.NetworkBridge { // there nobody finds it by name, and docker shows none
			c.DNSNames = endpointNames(s, set)
		}
		out[key] = c
	}
	mode := s.HostConfig.NetworkMode
	if mode.IsHost() || mode.IsNone() {
		out[string(mode)] = &network.EndpointSettings{}
	}
	for _, ep := range st.Endpoints {
		c, ok := out[ep.Key]
		if !ok {
			continue
		}
		c.NetworkID, c.EndpointID = ep.NetworkID, ep.ID
		if ep.Address.IsValid() {
			c.IPAddress, c.IPPrefixLen = ep.Address.Addr(), ep.Address.Bits()
		}
		if ep.Address6.IsValid() {
			c.GlobalIPv6Address, c.GlobalIPv6PrefixLen = ep.Address6.Addr(), ep.Address6.Bits()
		}
		c.IPv6Gateway = ep.Gateway6
		c.MacAddress = network.HardwareAddr(ep.HardwareAddr())
		c.Gateway = ep.Gateway
		if ep.Key != ep.NetworkName { // given by ID: shown by name
			delete(out, ep.Key)
			out[ep.NetworkName] = c
		}
	}
	return out
}

// ContainerList is docker ps.
func (e *Engine) ContainerList(ctx context.Context, o api.ListOptions) ([]mobycontainer.Summary, error) {
	f := o.Filters
	if err := f.Only("id", "name", "label", "status", "exited", "ancestor", "network", "before", "since", "publish", "expose", "volume", "health", "is-task"); err != nil {
		return nil, err
	}
	for s := range f["status"] {
		if err := mobycontainer.ValidateContainerState(mobycontainer.ContainerState(s)); err != nil {
			return nil, invalid("invalid filter 'status=%s': %v", s, err)
		}
	}
	for s := range f["health"] {
		if err := mobycontainer.ValidateHealthStatus(mobycontainer.HealthStatus(s)); err != nil {
			return nil, invalid("invalid filter 'health=%s': %v", s, err)
		}
	}
	bounds, err := e.listBounds(f)
	if err != nil {
		return nil, err
	}
	out := []mobycontainer.Summary{}
	for _, b := range e.all() {
		s, st := b.specCopy(), b.statusCopy()
		everything := o.All || o.Limit > 0 || len(f["status"]) > 0 || len(f["exited"]) > 0
		if !everything && !st.Active() || !bounds.contain(s.Created) || !e.matches(ctx, f, &s, &st) {
			continue
		}
		sum := e.summary(&s, &st)
		if o.Size {
			sum.SizeRw, sum.SizeRootFs = e.containerSizes(ctx, &s)
		}
		out = append(out, sum)
		if o.Limit > 0 && len(out) == o.Limit {
			break
		}
	}
	return out, nil
}

// span is between two containers' creations; a zero end is open.
type span struct{ after, before time.Time }

func (s span) contain(t time.Time) bool {
	return (s.after.IsZero() || t.After(s.after)) && (s.before.IsZero() || t.Before(s.before))
}

func (e *Engine) listBounds(f api.Filters) (s span, err error) {
	for ref := range f["before"] {
		b, err := e.find(ref)
		if err != nil {
			return s, err
		}
		s.before = b.specCopy().Created
	}
	for ref := range f["since"] {
		b, err := e.find(ref)
		if err != nil {
			return s, err
		}
		s.after = b.specCopy().Created
	}
	return s, nil
}

func (e *Engine) matches(_ context.Context, f api.Filters, s *container.Spec, st *container.Status) bool {
	ports := func(want string, have map[network.Port]bool) bool {
		p, err := network.ParsePort(want)
		return err == nil && have[p]
	}
	published, exposed := map[network.Port]bool{}, map[network.Port]bool{}
	for p := range s.Config.ExposedPorts {
		exposed[p] = true
	}
	for p, bindings := range e.portMap(s, st) {
		if len(bindings) > 0 {
			published[p], exposed[p] = true, true
			for _, b := range bindings {
				if n, err := strconv.ParseUint(b.HostPort, 10, 16); err == nil {
					hp, _ := network.PortFrom(uint16(n), p.Proto())
					published[hp] = true
				}
			}
		}
	}
	return f.Labels("label", s.Config.Labels) &&
		f.Named("id", s.ID) &&
		f.Named("name", "/"+s.Name, s.Name) &&
		f.Is("status", string(st.State)) &&
		f.Any("exited", func(v string) bool {
			return st.State == mobycontainer.StateExited && strconv.Itoa(st.ExitCode) == v
		}) &&
		f.Any("ancestor", func(v string) bool {
			return s.Image == v || s.Image == v+":latest" || s.Image+":latest" == v || s.ImageID == v || strings.HasPrefix(s.ImageID, "sha256:"+v)
		}) &&
		f.Any("network", func(v string) bool {
			return slices.ContainsFunc(st.Endpoints, func(ep container.Endpoint) bool { return ep.NetworkName == v || ep.NetworkID == v }) || s.Networks[v] != nil
		}) &&
		f.Any("volume", func(v string) bool {
			return slices.ContainsFunc(e.mountPoints(s), func(m mobycontainer.MountPoint) bool { return m.Name == v || m.Source == v || m.Destination == v })
		}) &&
		f.Any("publish", func(v string) bool { return ports(v, published) }) &&
		f.Any("expose", func(v string) bool { return ports(v, exposed) }) &&
		f.Is("health", string(healthSummary(st).Status)) &&
		f.Any("is-task", func(v string) bool { return v == "false" || v == "0" })
}

func (e *Engine) summary(s *container.Spec, st *container.Status) mobycontainer.Summary {
	r := mobycontainer.Summary{
		ID: s.ID, Names: []string{"/" + s.Name}, Image: s.Image, ImageID: s.ImageID, Command: strings.Join(s.Args(), " "),
		Created: s.Created.Unix(), Labels: s.Config.Labels, State: st.State, Status: st.Text(time.Now()), Ports: []mobycontainer.PortSummary{},
		NetworkSettings: &mobycontainer.NetworkSettingsSummary{Networks: endpointSettings(s, st)}, Mounts: e.mountPoints(s),
		Health: healthSummary(st),
	}
	r.HostConfig.NetworkMode = string(s.HostConfig.NetworkMode)
	if !st.Running() {
		return r
	}
	for p, bindings := range e.portMap(s, st) {
		if len(bindings) == 0 {
			r.Ports = append(r.Ports, mobycontainer.PortSummary{PrivatePort: p.Num(), Type: string(p.Proto())})
		}
		for _, b := range bindings {
			n, _ := strconv.ParseUint(b.HostPort, 10, 16) // our own number
			r.Ports = append(r.Ports, mobycontainer.PortSummary{IP: b.HostIP, PrivatePort: p.Num(), PublicPort: uint16(n), Type: string(p.Proto())})
		}
	}
	slices.SortFunc(r.Ports, func(a, b mobycontainer.PortSummary) int {
		return cmp.Or(cmp.Compare(a.PrivatePort, b.PrivatePort), cmp.Compare(a.PublicPort, b.PublicPort), a.IP.Compare(b.IP))
	})
	return r
}
