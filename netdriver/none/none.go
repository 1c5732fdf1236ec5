// Package none is the driver of the network called none: its sandboxes have lo and nothing else.
package none

import (
	"context"

	"github.com/minictl/minictl/netdriver"
)

// Driver does nothing: a fresh sandbox is all that is wished.
type Driver struct{}

// The driver honours the contract.
var _ netdriver.Driver = Driver{}

// New gives the driver.
func New() Driver { return Driver{} }

// Type is null, docker's word for it.
func (Driver) Type() string { return netdriver.TypeNull }

// Check accepts every network.
func (Driver) Check(netdriver.Network) error { return nil }

// Ensure has nothing to make.
func (Driver) Ensure(context.Context, netdriver.Network) error { return nil }

// Remove has nothing to remove.
func (Driver) Remove(context.Context, netdriver.Network) error { return nil }

// Join leaves the sandbox as it is and gives no interface.
func (Driver) Join(context.Context, netdriver.Network, netdriver.Endpoint, netdriver.Sandbox) (netdriver.Attachment, error) {
	return netdriver.Attachment{}, nil
}

// Leave has nothing to undo.
func (Driver) Leave(context.Context, netdriver.Network, netdriver.Endpoint) error { return nil }
