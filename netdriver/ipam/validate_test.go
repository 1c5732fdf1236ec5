package ipam

import (
	"net/netip"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver"
)

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		what    string
		s       netdriver.Subnet
		gateway string
		text    string
	}{
		{"the first address is the gateway", subnet("10.22.1.0/24", "", ""), "10.22.1.1", ""},
		{"a gateway of one's own", subnet("10.22.1.0/24", "10.22.1.254", ""), "10.22.1.254", ""},
		{"a range does not move the gateway", subnet("10.22.1.0/24", "", "10.22.1.128/25"), "10.22.1.1", ""},
		{"an auxiliary address does", subnet("10.22.1.0/24", "", "", "10.22.1.1"), "10.22.1.2", ""},
		{"a /31", subnet("10.0.0.0/31", "", ""), "10.0.0.0", ""},
		{"a /32", subnet("10.0.0.7/32", "", ""), "10.0.0.7", ""},
		{"IPv6", subnet("fd00::/64", "", "fd00::8000/113"), "fd00::1", ""},
		{"host bits", subnet("10.22.1.5/24", "", ""), "", "invalid subnet 10.22.1.5/24: it should be 10.22.1.0/24"},
		{"a mapped prefix", netdriver.Subnet{Prefix: netip.PrefixFrom(netip.MustParseAddr("::ffff:10.0.0.0"), 120)}, "",
			"invalid subnet ::ffff:10.0.0.0/120: invalid CIDR block notation"},
		{"no prefix", netdriver.Subnet{}, "", "invalid subnet invalid Prefix: invalid CIDR block notation"},
		{"a range of the other family", subnet("10.0.0.0/24", "", "fd00::/64"), "",
			"invalid ip-range fd00::/64: parent subnet is an IPv4 block"},
		{"a range elsewhere", subnet("10.0.0.0/24", "", "10.0.1.0/25"), "",
			"invalid ip-range 10.0.1.0/25: parent subnet 10.0.0.0/24 doesn't contain ip-range"},
		{"a range with host bits", subnet("10.0.0.0/24", "", "10.0.0.129/25"), "",
			"invalid ip-range 10.0.0.129/25: it should be 10.0.0.128/25"},
		{"a range too big", subnet("10.0.0.0/24", "", "10.0.0.0/16"), "",
			"invalid ip-range 10.0.0.0/16: CIDR block is bigger than its parent subnet 10.0.0.0/24"},
		{"a gateway elsewhere", subnet("10.0.0.0/24", "10.0.1.1", ""), "",
			"invalid gateway 10.0.1.1: parent subnet 10.0.0.0/24 doesn't contain this address"},
		{"a gateway of the other family", subnet("fd00::/64", "10.0.1.1", ""), "",
			"invalid gateway 10.0.1.1: parent subnet is an IPv6 block"},
		{"the network address as gateway", subnet("10.0.0.0/24", "10.0.0.0", ""), "",
			"invalid gateway 10.0.0.0: it is the network address of 10.0.0.0/24"},
		{"the broadcast address as gateway", subnet("10.0.0.0/24", "10.0.0.255", ""), "",
			"invalid gateway 10.0.0.255: it is the broadcast address of 10.0.0.0/24"},
		{"an auxiliary address elsewhere", subnet("10.0.0.0/24", "", "", "10.0.1.7"), "",
			"invalid auxiliary address 10.0.1.7: parent subnet 10.0.0.0/24 doesn't contain this address"},
		{"an auxiliary address twice used", subnet("10.0.0.0/24", "10.0.0.1", "", "10.0.0.1"), "",
			"invalid auxiliary address 10.0.0.1: the gateway has this address"},
		{"all at once", subnet("10.0.0.1/24", "10.1.0.1", "", "fd00::1", "10.2.0.1"), "",
			"invalid subnet 10.0.0.1/24: it should be 10.0.0.0/24; " +
				"invalid gateway 10.1.0.1: parent subnet 10.0.0.1/24 doesn't contain this address; " +
				"invalid auxiliary address 10.2.0.1: parent subnet 10.0.0.1/24 doesn't contain this address; " +
				"invalid auxiliary address fd00::1: parent subnet is an IPv4 block"},
		{"nothing left", subnet("10.0.0.0/31", "", "", "10.0.0.0", "10.0.0.1"), "",
			"invalid subnet 10.0.0.0/31: no address is left for the gateway"},
	} {
		got, err := Validate(c.s)
		if c.text != "" {
			if err == nil || !errdefs.IsInvalidArgument(err) || err.Error() != "invalid network config: "+c.text {
				t.Errorf("%s: %v", c.what, err)
			}
			continue
		}
		if err != nil || got.Gateway.String() != c.gateway || got.Prefix != c.s.Prefix || got.Range != c.s.Range {
			t.Errorf("%s: %v, %v", c.what, got, err)
		}
	}
}
