package bare_test

import (
	"testing"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/bare"
	"github.com/minictl/minictl/netdriver/netdrivertest"
)

// TestConformance runs the suite over the two drivers that make nothing.
func TestConformance(t *testing.T) {
	for _, d := range []netdriver.Driver{bare.New(netdriver.TypeNull), bare.New(netdriver.TypeHost)} {
		t.Run(d.Type(), func(t *testing.T) {
			netdrivertest.Suite(t, func(*testing.T, string) netdrivertest.Subject {
				return netdrivertest.Subject{
					New: func(*testing.T) netdriver.Driver { return d }, Inert: true, Network: netdriver.Network{Name: d.Type(), Driver: d.Type()},
					Endpoints: [2]netdriver.Endpoint{{ID: "a", Interface: "eth0"}, {ID: "b", Interface: "eth1"}},
				}
			})
		})
	}
}
