package portmap

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// holder names the process of this host that has a port: "nginx (pid 812)". "" if nobody is found, such as when the
// process lives in another PID namespace.
func holder(proto string, ip netip.Addr, port uint16) string {
	inodes := map[string]bool{}
	for _, family := range []string{"", "6"} {
		b, err := os.ReadFile("/proc/thread-self/net/" + proto + family)
		if err != nil {
			continue
		}
		for line := range bytes.Lines(b) {
			if s, ok := parseSocket(string(line)); ok && s.port == port && (proto != "tcp" || s.listens) && overlap(s.ip, ip) {
				inodes["socket:["+s.inode+"]"] = true
			}
		}
	}
	if len(inodes) == 0 {
		return ""
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is well formed
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && inodes[to] {
			pid := strings.Split(fd, "/")[2]
			name, err := os.ReadFile("/proc/" + pid + "/comm")
			if err != nil {
				continue
			}
			return fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(name)), pid)
		}
	}
	return ""
}

// bound is a line of /proc/net/tcp, udp and their like (proc(5)).
type bound struct {
	ip      netip.Addr // invalid: every address of both families
	port    uint16
	listens bool
	inode   string
}

// parseSocket reads a line: "sl local_address rem_address st … uid timeout inode", addresses in the machine's byte order.
func parseSocket(line string) (s bound, ok bool) {
	const listen = "0A" // TCP_LISTEN of linux/tcp_states.h
	f := strings.Fields(line)
	if len(f) < 10 {
		return s, false
	}
	addr, port, _ := strings.Cut(f[1], ":")
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return s, false
	}
	s = bound{port: uint16(n), listens: f[3] == listen, inode: f[9]}
	switch len(addr) {
	case 8:
		s.ip, ok = parseWords(addr)
	case 32:
		s.ip, ok = parseWords(addr)
		if s.ip.IsUnspecified() {
			s.ip = netip.Addr{} // IPv4 as well, unless it said that it does not want it
		}
	}
	return s, ok
}

// parseWords reads an address written as hexadecimal 32-bit words of this machine.
func parseWords(text string) (netip.Addr, bool) {
	var b []byte
	for ; len(text) >= 8; text = text[8:] {
		w, err := strconv.ParseUint(text[:8], 16, 32)
		if err != nil {
			return netip.Addr{}, false
		}
		b = binary.NativeEndian.AppendUint32(b, uint32(w))
	}
	a, ok := netip.AddrFromSlice(b)
	return a.Unmap(), ok
}
