// Package host is the driver of the network called host: its containers use the host's own network namespace.
//
// Whoever starts the container has to give it that namespace instead of a sandbox; there is nothing to make in it.
package host

import (
	"context"

	"github.com/minictl/minictl/netdriver"
)

// Driver does nothing: the host's interfaces are there already.
type Driver struct{}

// The driver honours the contract.
var _ netdriver.Driver = Driver{}

// New gives the driver.
func New() Driver { return Driver{} }

// Type is host.
func (Driver) Type() string { return netdriver.TypeHost }

// Check accepts every network.
func (Driver) Check(netdriver.Network) error { return nil }

// Ensure has nothing to make.
func (Driver) Ensure(context.Context, netdriver.Network) error { return nil }

// Remove has nothing to remove.
func (Driver) Remove(context.Context, netdriver.Network) error { return nil }

// Join leaves everything as it is and gives no interface.
func (Driver) Join(context.Context, netdriver.Network, netdriver.Endpoint, netdriver.Sandbox) (netdriver.Attachment, error) {
	return netdriver.Attachment{}, nil
}

// Leave has nothing to undo.
func (Driver) Leave(context.Context, netdriver.Network, netdriver.Endpoint) error { return nil }
