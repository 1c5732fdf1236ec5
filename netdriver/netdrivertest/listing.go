package netdrivertest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// The parts of iproute2's JSON that a listing shows.
type (
	linkJSON struct {
		Name   string   `json:"ifname"`
		Flags  []string `json:"flags"`
		MTU    int      `json:"mtu"`
		Master string   `json:"master"`
		MAC    string   `json:"address"`
		Info   struct {
			Kind string `json:"info_kind"`
			Data struct {
				ID       int    `json:"id"`
				Local    string `json:"local"`
				Local6   string `json:"local6"`
				Port     int    `json:"port"`
				Learning bool   `json:"learning"`
				Proxy    bool   `json:"proxy"`
				L2Miss   bool   `json:"l2miss"`
				L3Miss   bool   `json:"l3miss"`
				Checksum bool   `json:"udp_csum"`
			} `json:"info_data"`
			Port struct {
				State    string `json:"state"`
				Isolated bool   `json:"isolated"`
				Hairpin  bool   `json:"hairpin"`
				Flood    bool   `json:"flood"`
			} `json:"info_slave_data"`
		} `json:"linkinfo"`
		NSID  *int `json:"link_netnsid"`
		Addrs []struct {
			Local string `json:"local"`
			Bits  int    `json:"prefixlen"`
			Scope string `json:"scope"`
		} `json:"addr_info"`
	}
	routeJSON struct {
		To    string `json:"dst"`
		Via   string `json:"gateway"`
		Dev   string `json:"dev"`
		Scope string `json:"scope"`
		Src   string `json:"prefsrc"`
	}
	fdbJSON struct {
		MAC    string   `json:"mac"`
		Dev    string   `json:"ifname"`
		Flags  []string `json:"flags"`
		Master string   `json:"master"`
		State  string   `json:"state"`
		To     string   `json:"dst"`
	}
	neighJSON struct {
		To    string   `json:"dst"`
		Dev   string   `json:"dev"`
		MAC   string   `json:"lladdr"`
		State []string `json:"state"`
	}
)

// Listing is the kernel's own listing of a namespace, "" for the calling thread's, as iproute2 tells it: links,
// addresses, routes, stated forwarding and neighbour rows. What differs from run to run (random MACs, indices, order,
// what was learned) is left out, so that it may be compared with a golden text.
func Listing(t testing.TB, path string) string {
	t.Helper()
	var b strings.Builder
	var links []linkJSON
	ask(t, path, &links, "ip", "-j", "-d", "addr", "show")
	slices.SortFunc(links, func(a, b linkJSON) int { return strings.Compare(a.Name, b.Name) })
	for _, l := range links {
		b.WriteString(l.text())
		if l.Master != "" {
			b.WriteString(guardText(t, path, l.Name))
		}
	}
	var routes []routeJSON
	ask(t, path, &routes, "ip", "-j", "route", "show")
	var routes6 []routeJSON
	ask(t, path, &routes6, "ip", "-j", "-6", "route", "show")
	for _, r := range append(routes, routes6...) {
		if isLinkLocal(r.To) {
			continue
		}
		fmt.Fprintf(&b, "route %s%s dev %s%s%s\n", r.To, word(" via ", r.Via), r.Dev, word(" scope ", r.Scope), word(" src ", r.Src))
	}
	b.WriteString(rowsText(t, path))
	return b.String()
}

// text is a link's line, and one for each address.
func (l linkJSON) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "link %s%s mtu %d", l.Name, word(" ", l.Info.Kind), l.MTU)
	if ours(l.MAC) {
		b.WriteString(" mac " + l.MAC)
	}
	for _, f := range l.Flags {
		if f == "UP" || f == "LOWER_UP" {
			b.WriteString(" " + strings.ToLower(f))
		}
	}
	b.WriteString(word(" master ", l.Master) + word(" ", l.Info.Port.State))
	if d := l.Info.Data; l.Info.Kind == "vxlan" {
		fmt.Fprintf(&b, " id %d dstport %d%s", d.ID, d.Port, word(" local ", d.Local+d.Local6))
		b.WriteString(flag(" proxy", d.Proxy) + flag(" l2miss", d.L2Miss) + flag(" l3miss", d.L3Miss) +
			flag(" nolearning", !d.Learning) + flag(" udpcsum", d.Checksum) + flag(" elsewhere", l.NSID != nil))
	}
	b.WriteString(flag(" isolated", l.Info.Port.Isolated) + flag(" hairpin", l.Info.Port.Hairpin) + flag(" noflood", l.Master != "" && !l.Info.Port.Flood) + "\n")
	for _, a := range l.Addrs {
		if isLinkLocal(a.Local) {
			continue
		}
		fmt.Fprintf(&b, "  addr %s/%d scope %s\n", a.Local, a.Bits, a.Scope)
	}
	return b.String()
}

// guardText tells who may speak through a bridge's port.
func guardText(t testing.TB, path, port string) string {
	t.Helper()
	var filters []struct {
		Options struct {
			Name string `json:"bpf_name"`
		} `json:"options"`
	}
	ask(t, path, &filters, "tc", "-j", "filter", "show", "dev", port, "ingress")
	for _, f := range filters {
		if f.Options.Name != "" {
			return "  guard " + f.Options.Name + "\n"
		}
	}
	return ""
}

// rowsText lists the rows somebody has stated.
func rowsText(t testing.TB, path string) string {
	t.Helper()
	var lines []string
	var fdb []fdbJSON
	ask(t, path, &fdb, "bridge", "-j", "fdb", "show")
	for _, r := range fdb {
		if ours(r.MAC) && r.State != "" {
			lines = append(lines, fmt.Sprintf("fdb %s dev %s%s%s %s\n", r.MAC, r.Dev, word(" master ", r.Master), word(" dst ", r.To), r.State))
		}
	}
	var neigh []neighJSON
	ask(t, path, &neigh, "ip", "-j", "neigh", "show")
	for _, r := range neigh {
		if slices.Contains(r.State, "PERMANENT") {
			lines = append(lines, fmt.Sprintf("neigh %s dev %s lladdr %s permanent\n", r.To, r.Dev, r.MAC))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// ask runs a command inside a namespace and reads the JSON it prints.
func ask(t testing.TB, path string, to any, command ...string) {
	t.Helper()
	out, err := Run(path, command...)
	if err != nil {
		t.Fatalf("%v: %v\n%s", command, err, out)
	}
	if strings.TrimSpace(out) == "" {
		return
	}
	if err := json.Unmarshal([]byte(out), to); err != nil {
		t.Fatalf("%v: %v\n%s", command, err, out)
	}
}

// isLinkLocal tells what the kernel does for IPv6 by itself, at a time of its own.
func isLinkLocal(text string) bool { return strings.HasPrefix(text, "fe80:") }

// ours tells a MAC made from an address from a random or a multicast one.
func ours(mac string) bool { return strings.HasPrefix(mac, "02:42:") }

// word is prefix and text, or nothing.
func word(prefix, text string) string {
	if text == "" {
		return ""
	}
	return prefix + text
}

// flag is name if on.
func flag(name string, on bool) string {
	if on {
		return name
	}
	return ""
}
