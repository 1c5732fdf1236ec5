// Package bare is the driver of the networks in which nothing is made: none, whose sandboxes have lo and nothing else, and
// host, whose containers use the host's own network namespace. Whoever starts a container of the latter has to give it that
// namespace instead of a sandbox.
package bare

import (
	"context"

	"github.com/minictl/minictl/netdriver"
)

// Driver does nothing.
type Driver struct{ name string }

// The driver honours the contract.
var _ netdriver.Driver = Driver{}

// New gives the driver by its name, netdriver.TypeHost or TypeNull.
func New(name string) Driver { return Driver{name} }

// Type is its name.
func (d Driver) Type() string { return d.name }

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
