package records

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"
)

// Record is one endpoint on a global network.
type Record struct {
	ID        string     `json:"id"`        // endpoint ID, unique in the cluster
	Network   string     `json:"network"`   // network ID
	Container string     `json:"container"` // container ID
	Name      string     `json:"name"`      // container name
	Names     []string   `json:"names,omitempty"`
	Address   netip.Addr `json:"address"` // IPv4; invalid on a network without it
	PrefixLen int        `json:"prefixLen"`
	MAC       string     `json:"mac"`
	// Address6 is the IPv6 address; invalid on a network without it.
	Address6   netip.Addr `json:"address6,omitzero"`
	PrefixLen6 int        `json:"prefixLen6,omitempty"`
}

// Addresses are the record's addresses with their subnets' lengths, IPv4 first.
func (r Record) Addresses() []netip.Prefix {
	var out []netip.Prefix
	for _, p := range []netip.Prefix{netip.PrefixFrom(r.Address, r.PrefixLen), netip.PrefixFrom(r.Address6, r.PrefixLen6)} {
		if p.IsValid() {
			out = append(out, p)
		}
	}
	return out
}

func (r Record) equal(o Record) bool {
	return r.ID == o.ID && r.Network == o.Network && r.Container == o.Container && r.Name == o.Name &&
		slices.Equal(r.Names, o.Names) && r.Address == o.Address && r.PrefixLen == o.PrefixLen && r.MAC == o.MAC &&
		r.Address6 == o.Address6 && r.PrefixLen6 == o.PrefixLen6
}

// Owned is a record and the host whose word it is.
type Owned struct {
	Record
	Owner string
	Alive bool // false while the owner is thought dead
}

// Version orders the states of one owner's snapshot. The zero Version is older than every snapshot.
type Version struct {
	Incarnation uint64 `json:"i"`
	Counter     uint64 `json:"c"`
}

// Compare orders versions as cmp.Compare does.
func (v Version) Compare(o Version) int {
	return cmp.Or(cmp.Compare(v.Incarnation, o.Incarnation), cmp.Compare(v.Counter, o.Counter))
}

// Update is one owner's snapshot (Full), or what changed in it between the versions Base and Version.
type Update struct {
	Owner   string   `json:"owner"`
	Version Version  `json:"version"`
	Full    bool     `json:"full,omitempty"`
	Base    Version  `json:"base,omitzero"` // of a difference
	Put     []Record `json:"put,omitempty"`
	Del     []string `json:"del,omitempty"` // record IDs
}

// MaxRecords bounds one update: no host runs as many containers, a damaged or hostile one may claim to.
const MaxRecords = 65536

// DecodeUpdate reads an update from the wire and checks all that can be checked without a table.
func DecodeUpdate(b []byte) (Update, error) {
	var u Update
	if err := json.Unmarshal(b, &u); err != nil {
		return Update{}, fmt.Errorf("decode record update: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return u, u.check()
}

// maxIncarnation leaves an owner room to outdo whatever anybody claims of it.
const maxIncarnation = 1 << 62

// check says what is wrong with an update that another host sent.
func (u Update) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("record update of %q: %s: %w", u.Owner, fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument)
	}
	switch {
	case u.Owner == "":
		return bad("no owner")
	case u.Version.Compare(Version{}) <= 0:
		return bad("no version")
	case u.Version.Incarnation > maxIncarnation:
		return bad("incarnation %d", u.Version.Incarnation)
	case len(u.Put)+len(u.Del) > MaxRecords:
		return bad("%d records", len(u.Put)+len(u.Del))
	case u.Full && (len(u.Del) > 0 || u.Base != Version{}):
		return bad("a whole snapshot that deletes or has a base")
	case !u.Full && (u.Base.Incarnation != u.Version.Incarnation || u.Base.Counter >= u.Version.Counter):
		return bad("a difference from version %v to %v", u.Base, u.Version)
	}
	seen := make(map[string]bool, len(u.Put)+len(u.Del))
	for _, r := range u.Put {
		if r.ID == "" || r.Network == "" {
			return bad("a record without ID or network")
		}
		if seen[r.ID] {
			return bad("record %s twice", r.ID)
		}
		if !fits(r.Address, r.PrefixLen) || !fits(r.Address6, r.PrefixLen6) || len(r.Addresses()) == 0 {
			return bad("record %s: addresses %v/%d, %v/%d", r.ID, r.Address, r.PrefixLen, r.Address6, r.PrefixLen6)
		}
		seen[r.ID] = true
	}
	for _, id := range u.Del {
		if seen[id] {
			return bad("record %s twice", id)
		}
		seen[id] = true
	}
	return nil
}

// fits tells whether an address, if there is one, has a subnet of that length.
func fits(a netip.Addr, bits int) bool { return bits >= 0 && bits <= a.BitLen() }
