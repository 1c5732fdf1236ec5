package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/minictl/minictl/testing/lab"
)

// TestSubnets is networks of several subnets, what they show of themselves, and MTUs that follow the hosts'.
func TestSubnets(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h1, h2 := pair(t, l)
	// Not with docker's client, which sends subnets in no order.
	h2.MustMinictl("network", "create", "-d", "overlay", "--subnet", "10.50.0.0/29", "--subnet", "10.51.0.0/24", "--gateway", "10.50.0.1", "--gateway", "10.51.0.9",
		"--aux-address", "printer=10.50.0.2", "wide")
	h1.MustMinictl("run", "-d", "--name", "c1", "--network", "wide", "busybox", "sleep", "600")
	for _, ip := range []string{"10.50.0.4", "10.50.0.5", "10.50.0.6"} {
		h1.MustMinictl("create", "--network", "wide", "--ip", ip, "busybox")
	}
	h2.MustDocker("run", "-d", "--name", "c2", "--network", "wide", "busybox", "sleep", "600")
	wantMatch(t, "an address of the second subnet", h2.MustDocker("inspect", "-f", "{{.NetworkSettings.Networks.wide.IPAddress}}/{{.NetworkSettings.Networks.wide.IPPrefixLen}}", "c2"), `^10\.51\.0\.1/24\s`)
	wantMatch(t, "from one subnet to the other", h1.MustMinictl("exec", "c1", "ping", "-c", "1", "-W", "10", "c2"), ` 0% packet loss`)
	wantMatch(t, "and back", h2.MustMinictl("exec", "c2", "ping", "-c", "1", "-W", "10", "c1"), ` 0% packet loss`)
	wantMatch(t, "the second gateway", h1.MustMinictl("exec", "c1", "ping", "-c", "1", "-W", "10", "10.51.0.9"), ` 0% packet loss`)
	type shown struct {
		VNI, MTU int
		Peers    []struct{ Name, IP string }
		Status   struct {
			IPAM struct {
				Subnets map[string]struct{ IPsInUse, DynamicIPsAvailable int }
			}
		}
		Reserves map[string][]string
	}
	got := inspect[shown](t, h1.MustMinictl("network", "inspect", "wide"))
	if s := got.Status.IPAM.Subnets["10.50.0.0/29"]; s.IPsInUse != 4 || s.DynamicIPsAvailable != 0 {
		t.Errorf("the first subnet: %+v", got.Status)
	}
	if s := got.Status.IPAM.Subnets["10.51.0.0/24"]; s.IPsInUse != 17 || s.DynamicIPsAvailable != 236 || len(got.Reserves["host1"]) != 8 {
		t.Errorf("the second subnet: %+v, %v", got.Status, got.Reserves)
	}
	if got.VNI == 0 || got.MTU != 1450 || len(got.Peers) != 2 {
		t.Errorf("inspect: %+v", got)
	}

	h1.MustMinictl("network", "create", "-d", "overlay", "--subnet", "10.60.0.0/29", "small")
	for i, h := range []*lab.Host{h1, h1, h1, h2, h2} {
		h.MustMinictl("create", "--network", "small", "--ip", fmt.Sprintf("10.60.0.%d", 2+i), "busybox")
	}
	fails(t, h2, 125, `no available IPv4 addresses on this network's address pools: small .*: all 5 are in use: host1 3 and 0 in reserve, host2 2 and 0 in reserve`,
		"run", "--rm", "--network", "small", "busybox")
	h2.MustDocker("network", "create", "-d", "overlay", "--subnet", "0.0.0.0/22", "--subnet", "::/80", "sized")
	wantMatch(t, "subnets of asked sizes", h1.MustDocker("network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}} {{end}}", "sized"), `^10\.[\d.]+/22 fd[0-9a-f:]+/80 `)
	fails(t, h1, 1, `subnet fd00::/64 is of IPv6, which is switched off`, "network", "create", "--ipv6=false", "--subnet", "fd00::/64", "never")
	fails(t, h1, 1, `IPv4 or IPv6 must be enabled`, "network", "create", "--ipv4=false", "never")

	mtu := func(h *lab.Host, name, want string) {
		t.Helper()
		l.Eventually(soon, func() error {
			if out := h.MustMinictl("exec", name, "ip", "link", "show", "eth0"); !strings.Contains(out, "mtu "+want+" ") {
				return errf("%s: %s", name, out)
			}
			return nil
		})
	}
	mtu(h1, "c1", "1450")
	h2.MustRun("ip", "link", "set", "eth0", "mtu", "1400")
	mtu(h1, "c1", "1350") // the other host's
	mtu(h2, "c2", "1350")
	whole := []string{"exec", "c1", "ping", "-c", "1", "-W", "10", "-s", "1322", "c2"}
	wantMatch(t, "a packet as large as the path", h1.MustMinictl(whole...), ` 0% packet loss`)
	h1.MustMinictl("network", "create", "-d", "overlay", "-o", "com.docker.network.driver.mtu=1200", "narrow")
	h1.MustMinictl("run", "-d", "--name", "n1", "--network", "narrow", "busybox", "sleep", "600")
	mtu(h1, "n1", "1200")
	h2.MustRun("ip", "link", "set", "eth0", "mtu", "1500")
	mtu(h1, "c1", "1450")
	mtu(h2, "c2", "1450")
	mtu(h1, "n1", "1200")
}

// TestEndpointsOfBothFamilies is what --network may say of an endpoint, live and stopped, with both clients.
func TestEndpointsOfBothFamilies(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	h := start(t, l, "host1")
	sixth(h, 11)
	h.MustMinictl("network", "create", "--subnet", "172.30.4.0/24", "four")
	h.MustMinictl("network", "create", "--subnet", "172.30.6.0/24", "--subnet", "fd00:30:6::/64", "--ip-range", "fd00:30:6::8000/113", "--aux-address", "router=fd00:30:6::8001", "both")
	for _, docker := range []bool{false, true} {
		name := map[bool]string{false: "minictl", true: "docker"}[docker]
		t.Run(name, func(t *testing.T) {
			must := h.MustMinictl
			if docker {
				must = h.MustDocker
			}
			in := func(args ...string) string { return must(append([]string{"exec", "box"}, args...)...) }
			must("run", "-d", "--name", "box", "--network", "name=four,gw-priority=5",
				"--network", "name=both,ip=172.30.6.66,ip6=fd00:30:6::66,mac-address=02:42:11:22:33:44,alias=twin,link-local-ip=169.254.7.7,link-local-ip=fe80::7,driver-opt=com.docker.network.endpoint.ifname=wan0",
				"busybox", "sleep", "600")
			addrs := in("ip", "addr", "show", "wan0")
			for _, want := range []string{`inet 172\.30\.6\.66/24`, `inet6 fd00:30:6::66/64`, `inet 169\.254\.7\.7/16`, `inet6 fe80::7/64`, `02:42:11:22:33:44`} {
				wantMatch(t, "wan0", addrs, want)
			}
			wantMatch(t, "the IPv4 way out", in("ip", "-4", "route"), `default via 172\.30\.4\.1 dev eth0`)
			wantMatch(t, "the IPv6 way out", in("ip", "-6", "route"), `default via fd00:30:6::1 dev wan0`)
			must("network", "disconnect", "four", "box")
			wantMatch(t, "the way out of what is left", in("ip", "-4", "route"), `default via 172\.30\.6\.1 dev wan0`)
			must("network", "connect", "--gw-priority", "7", "four", "box")
			wantMatch(t, "and back", in("ip", "-4", "route"), `default via 172\.30\.4\.1 dev eth0`)
			wantMatch(t, "IPv6 stays", in("ip", "-6", "route"), `default via fd00:30:6::1 dev wan0`)
			must("network", "disconnect", "both", "box")
			if out := in("ip", "-6", "route"); strings.Contains(out, "default") {
				t.Errorf("IPv6 without an address of it:\n%s", out)
			}
			must("network", "connect", "--ip6", "fd00:30:6::77", "--alias", "twin", "both", "box")
			must("run", "-d", "--name", "other", "--network", "both", "busybox", "sleep", "600")
			wantMatch(t, "the range's first free address", must("inspect", "-f", "{{.NetworkSettings.Networks.both.GlobalIPv6Address}}", "other"), `^fd00:30:6::8000\s`)
			wantMatch(t, "an alias over IPv6", must("exec", "other", "ping", "-6", "-c", "1", "-W", "10", "twin"), `PING twin \(fd00:30:6::77\)(.|\n)* 0% packet loss`)
			must("stop", "-t", "0", "box")
			refuse := h.Minictl
			if docker {
				refuse = h.Docker
			}
			_, errOut, code := refuse("run", "--rm", "--network", "both", "--ip6", "fd00:30:6::77", "busybox")
			if code != 125 {
				t.Errorf("a stopped container's address: code %d", code)
			}
			wantMatch(t, "a stopped container's address", errOut, `Address already in use: fd00:30:6::77 on network both is held by container box`)
			must("network", "disconnect", "both", "box")
			must("network", "connect", "--ip6", "fd00:30:6::88", "both", "box")
			must("start", "box")
			wantMatch(t, "connected while stopped", must("inspect", "-f", "{{.NetworkSettings.Networks.both.GlobalIPv6Address}} {{.NetworkSettings.Networks.both.IPv6Gateway}}", "box"), `^fd00:30:6::88 fd00:30:6::1\s`)
			wantMatch(t, "its old address is free", must("run", "--rm", "--network", "both", "--ip6", "fd00:30:6::77", "busybox", "ip", "addr"), `fd00:30:6::77/64`)
			must("rm", "-f", "box", "other")
		})
	}
}
