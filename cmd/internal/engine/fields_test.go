package engine

import (
	"cmp"
	"context"
	"testing"

	mobycontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	mobyvolume "github.com/moby/moby/api/types/volume"

	"github.com/minictl/minictl/cluster/store/memstore"
	"github.com/minictl/minictl/testing/fields"
)

// TestEveryField goes over every field that networks, endpoints, volumes and execs can be asked for with; those of containers
// are runtime/oci's.
func TestEveryField(t *testing.T) {
	const (
		fact = "it says what is, and is no wish, to docker neither"
		told = "it is kept and shown, and changes nothing, as with docker"
	)
	w := fields.New(t, map[string]string{
		"CreateRequest.Name":       "e2e:TestNames",
		"CreateRequest.Driver":     "e2e:\"-d\", \"overlay\"",
		"CreateRequest.DriverOpts": "e2e:TestVolumeOptions",
		"CreateRequest.Labels":     "e2e:--label",
		"CreateRequest.Internal":   "e2e:--internal",
		"CreateRequest.Attachable": told,
		"CreateRequest.EnableIPv4": "e2e:--ipv4=false",
		"CreateRequest.EnableIPv6": "e2e:--ipv6",
		"CreateRequest.Options":    "e2e:com.docker.network",

		"IPAM.Driver":           "its default: another is refused, below",
		"IPAM.Options":          told,
		"IPAMConfig.Subnet":     "e2e:--subnet",
		"IPAMConfig.IPRange":    "e2e:--ip-range",
		"IPAMConfig.Gateway":    "e2e:--gateway",
		"IPAMConfig.AuxAddress": "e2e:--aux-address",

		"EndpointSettings.IPAMConfig":          "walked below",
		"EndpointSettings.Links":               "e2e:TestLinks",
		"EndpointSettings.Aliases":             "e2e:--network-alias",
		"EndpointSettings.MacAddress":          "e2e:--mac-address",
		"EndpointSettings.DriverOpts":          "engine:optionIfname",
		"EndpointSettings.GwPriority":          "engine:GwPriority",
		"EndpointSettings.NetworkID":           fact,
		"EndpointSettings.EndpointID":          fact,
		"EndpointSettings.Gateway":             fact,
		"EndpointSettings.IPAddress":           fact,
		"EndpointSettings.IPPrefixLen":         fact,
		"EndpointSettings.IPv6Gateway":         fact,
		"EndpointSettings.GlobalIPv6Address":   fact,
		"EndpointSettings.GlobalIPv6PrefixLen": fact,
		"EndpointSettings.DNSNames":            fact,
		"EndpointIPAMConfig.IPv4Address":       "e2e:TestStaticAddress",
		"EndpointIPAMConfig.IPv6Address":       "e2e:--ip6",

		"ExecCreateRequest.User":         "e2e:\"-u\"",
		"ExecCreateRequest.Privileged":   "e2e:--privileged",
		"ExecCreateRequest.Tty":          "e2e:TestTerminals",
		"ExecCreateRequest.ConsoleSize":  "e2e:stty size",
		"ExecCreateRequest.AttachStdin":  "e2e:TestHalfClose",
		"ExecCreateRequest.AttachStderr": "e2e:TestStreams",
		"ExecCreateRequest.AttachStdout": "e2e:TestStreams",
		"ExecCreateRequest.DetachKeys":   "e2e:--detach-keys",
		"ExecCreateRequest.Env":          "e2e:\"exec\", \"-e\"",
		"ExecCreateRequest.WorkingDir":   "e2e:\"exec\", \"-w\"",
		"ExecCreateRequest.Cmd":          "e2e:TestManyExecs",
	}, map[string]string{"e2e": "../../../testing/e2e", "engine": "."})
	e := newHost(t, memstore.New(), "host1")
	wanted := func(req network.CreateRequest) error {
		req.Name, req.Driver = cmp.Or(req.Name, "n"), cmp.Or(req.Driver, "overlay")
		_, err := e.newNetwork(context.Background(), req)
		return err
	}
	w.Each(network.CreateRequest{}, func(r any) error { return wanted(*r.(*network.CreateRequest)) }, "IPAM")
	w.Each(network.IPAM{}, func(i any) error { return wanted(network.CreateRequest{IPAM: i.(*network.IPAM)}) }, "Config")
	w.Each(network.IPAMConfig{}, func(c any) error {
		return wanted(network.CreateRequest{IPAM: &network.IPAM{Config: []network.IPAMConfig{*c.(*network.IPAMConfig)}}})
	})
	w.Each(network.EndpointSettings{}, func(s any) error { return checkEndpointWish("n", s.(*network.EndpointSettings)) })
	w.Each(network.EndpointIPAMConfig{}, func(c any) error {
		return checkEndpointWish("n", &network.EndpointSettings{IPAMConfig: c.(*network.EndpointIPAMConfig)})
	})
	w.Each(mobyvolume.CreateRequest{}, func(r any) error {
		_, err := e.VolumeCreate(t.Context(), *r.(*mobyvolume.CreateRequest))
		return err
	}, "Name", "Driver", "Labels") // as networks have them
	w.Each(mobycontainer.ExecCreateRequest{}, func(any) error { return nil })
	w.Done()
	for name, req := range map[string]network.CreateRequest{
		"IPAM driver": {IPAM: &network.IPAM{Driver: "dhcp"}}, "neither IPv4 nor IPv6": {EnableIPv4: new(bool)},
	} {
		if err := wanted(req); err == nil {
			t.Errorf("%s is not refused", name)
		}
	}
}
