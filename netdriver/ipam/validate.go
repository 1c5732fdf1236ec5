package ipam

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver"
)

// Validate checks one subnet as a user wrote it and fills in the gateway, its lowest address that is not auxiliary, when
// there is none. The errors are errdefs.ErrInvalidArgument and carry docker's sentences, all of them at once, because
// clients show them as they are.
func Validate(s netdriver.Subnet) (netdriver.Subnet, error) {
	if !s.Prefix.IsValid() || s.Prefix.Addr().Is4In6() {
		return s, invalid([]string{fmt.Sprintf("invalid subnet %s: invalid CIDR block notation", s.Prefix)})
	}
	var bad []string
	if masked := s.Prefix.Masked(); s.Prefix != masked {
		bad = append(bad, fmt.Sprintf("invalid subnet %s: it should be %s", s.Prefix, masked))
	}
	bad = append(bad, rangeFaults(s)...)
	if s.Gateway.IsValid() {
		if why := addressFault(s.Prefix, s.Gateway); why != "" {
			bad = append(bad, fmt.Sprintf("invalid gateway %s: %s", s.Gateway, why))
		}
	}
	// In the order of names: a map's own order would give another text each time.
	for _, name := range slices.Sorted(maps.Keys(s.Aux)) {
		why := addressFault(s.Prefix, s.Aux[name])
		if why == "" && s.Aux[name] == s.Gateway {
			why = "the gateway has this address"
		}
		if why != "" {
			bad = append(bad, fmt.Sprintf("invalid auxiliary address %s: %s", name, why))
		}
	}
	if len(bad) > 0 {
		return s, invalid(bad)
	}
	return withGateway(s)
}

// withGateway gives s its lowest address as the gateway unless it has one. The range is not asked: a gateway is not one
// of the dynamic addresses.
func withGateway(s netdriver.Subnet) (netdriver.Subnet, error) {
	if s.Gateway.IsValid() {
		return s, nil
	}
	whole := s
	whole.Range = netip.Prefix{}
	gw, err := Lowest(whole, func(netip.Addr) bool { return false })
	if err != nil {
		return s, invalid([]string{fmt.Sprintf("invalid subnet %s: no address is left for the gateway", s.Prefix)})
	}
	s.Gateway = gw
	return s, nil
}

func rangeFaults(s netdriver.Subnet) []string {
	r, parent := s.Range, s.Prefix
	if !r.IsValid() {
		return nil
	}
	if r.Addr().BitLen() != parent.Addr().BitLen() {
		return []string{fmt.Sprintf("invalid ip-range %s: parent subnet is an %s block", r, family(parent))}
	}
	var bad []string
	if r.Bits() < parent.Bits() {
		bad = append(bad, fmt.Sprintf("invalid ip-range %s: CIDR block is bigger than its parent subnet %s", r, parent))
	}
	if r != r.Masked() {
		bad = append(bad, fmt.Sprintf("invalid ip-range %s: it should be %s", r, r.Masked()))
	}
	if !parent.Overlaps(r) {
		bad = append(bad, fmt.Sprintf("invalid ip-range %s: parent subnet %s doesn't contain ip-range", r, parent))
	}
	return bad
}

// addressFault says why a given address cannot be one of parent's, or "".
func addressFault(parent netip.Prefix, a netip.Addr) string {
	switch {
	case !a.IsValid():
		return "invalid address"
	case a.BitLen() != parent.Addr().BitLen():
		return fmt.Sprintf("parent subnet is an %s block", family(parent))
	case !parent.Contains(a):
		return fmt.Sprintf("parent subnet %s doesn't contain this address", parent)
	case hasNetworkAddress(parent) && a == parent.Masked().Addr():
		return fmt.Sprintf("it is the network address of %s", parent.Masked())
	case hasNetworkAddress(parent) && a.Is4() && a == lastOf(parent):
		return fmt.Sprintf("it is the broadcast address of %s", parent.Masked())
	}
	return ""
}

func family(p netip.Prefix) string {
	if p.Addr().Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// invalid joins faults on one line, each in docker's words.
func invalid(faults []string) error {
	return errdefs.ErrInvalidArgument.WithMessage("invalid network config: " + strings.Join(faults, "; "))
}
