package container

import (
	"net/netip"
	"path"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/sys/signal"
)

// hostGateway stands for the host's own address in --add-host.
const hostGateway = "host-gateway"

// validateValues refuses single values that no container can have; behind this point they would be found only at its start
// or its stop.
func validateValues(c *container.Config, h *container.HostConfig) error {
	if c.StopSignal != "" {
		if _, err := signal.ParseSignal(c.StopSignal); err != nil {
			return refused("%v", err)
		}
	}
	if !h.UTSMode.Valid() {
		return refused("invalid UTS mode: %s", h.UTSMode)
	}
	for target := range h.Tmpfs {
		if !path.IsAbs(target) {
			return refused("invalid mount path: '%s' mount path must be absolute", target)
		}
	}
	for _, entry := range h.ExtraHosts {
		if err := validateExtraHost(entry); err != nil {
			return err
		}
	}
	return nil
}

// validateExtraHost takes name:address; the address may be in brackets.
func validateExtraHost(entry string) error {
	name, addr, ok := strings.Cut(entry, ":")
	if !ok || name == "" || strings.ContainsAny(name, " \t\r\n") {
		return refused("bad format for add-host: %q", entry)
	}
	if addr == hostGateway {
		return nil
	}
	if inner, ok := strings.CutPrefix(addr, "["); ok && strings.HasSuffix(inner, "]") {
		addr = strings.TrimSuffix(inner, "]")
	}
	if _, err := netip.ParseAddr(addr); err != nil {
		return refused("invalid IP address in add-host: %q", addr)
	}
	return nil
}
