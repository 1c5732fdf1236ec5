package bridge

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/nl"
)

// forwarding and forwarding6 are the host's settings that let packets through from one interface to another.
const (
	forwarding  = "net/ipv4/ip_forward"
	forwarding6 = "net/ipv6/conf/all/forwarding"
)

// Sysctls are the settings of the whole host that a Driver changes.
func Sysctls() []string { return []string{forwarding, forwarding6} }

// setSysctls sets what forwarding needs. route_localnet lets ports published on 127.0.0.1 reach a container; the
// firewall keeps 127/8 from coming in by the wire.
func setSysctls(n netdriver.Network, name string, own bool) error {
	if err := nl.SetSysctl(forwarding, "1"); err != nil {
		return err
	}
	if err := nl.SetSysctl("net/ipv4/conf/"+name+"/route_localnet", "1"); err != nil {
		return err
	}
	if slices.ContainsFunc(n.Subnets, func(s netdriver.Subnet) bool { return s.Prefix.Addr().Is6() }) {
		return setIPv6(name)
	}
	if !own {
		return nil
	}
	err := nl.SetSysctl("net/ipv6/conf/"+name+"/disable_ipv6", "1")
	if errdefs.IsNotFound(err) { // a kernel without IPv6
		return nil
	}
	return err
}

// setIPv6 lets a bridge, and the host, speak IPv6. Nobody else has the gateway's address, so that there is no need to
// look for it for a second (accept_dad), and the bridge takes no router's word: it is the router.
func setIPv6(name string) error {
	conf := "net/ipv6/conf/" + name
	err := errors.Join(nl.SetSysctl(conf+"/accept_dad", "0"), nl.SetSysctl(conf+"/accept_ra", "0"), nl.SetSysctl(conf+"/disable_ipv6", "0"))
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("this kernel has no IPv6: %w", errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		return err
	}
	return forwardIPv6()
}

// forwardIPv6 makes the host a router. A router takes no default route from others' advertisements (accept_ra 1,
// ip-sysctl.rst), which would cut off a host that has its own from there: it goes on taking them (2).
func forwardIPv6() error {
	if on, err := nl.Sysctl(forwarding6); err != nil || on == "1" {
		return err
	}
	confs, err := filepath.Glob("/proc/sys/net/ipv6/conf/*/accept_ra")
	if err != nil {
		return err
	}
	for _, path := range confs {
		key, err := filepath.Rel("/proc/sys", path)
		if err != nil {
			return err
		}
		if v, err := nl.Sysctl(key); err == nil && v == "1" {
			if err := nl.SetSysctl(key, "2"); err != nil && !errdefs.IsNotFound(err) { // an interface may go at any time
				return err
			}
		}
	}
	return nl.SetSysctl(forwarding6, "1")
}
