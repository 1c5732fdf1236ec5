package engine

import (
	"testing"

	"github.com/minictl/minictl/cluster"
	"github.com/minictl/minictl/dnsd"
	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/runtime/container"
)

// TestAskedBeforePublished: a container asks for a name in the moment before it is published, and is told that there is none.
// That is not what the next one is told.
func TestAskedBeforePublished(t *testing.T) {
	hosts, ov := islands(t, 1)
	h := hosts[0]
	ep := container.Endpoint{ID: newID(), NetworkID: ov, Driver: netdriver.TypeOverlay, Global: true}
	var asked *dnsd.Zone
	h.fake.publishing = func() { asked = h.zone(ep) }
	web := cluster.Record{ID: ep.ID, Network: ov, Name: "web"}
	h.publish(t.Context(), []cluster.Record{web}, nil)
	if asked == nil || h.zone(ep) == asked {
		t.Error("what was answered before a name was published is still answered")
	}
	h.publish(t.Context(), nil, []string{ep.ID})
	if h.zone(ep) == asked {
		t.Error("a name is still answered that was taken back")
	}
}
