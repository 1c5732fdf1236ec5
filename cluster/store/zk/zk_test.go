package zk

import (
	"fmt"
	"testing"

	"github.com/minictl/minictl/cluster/store/journal"
	"github.com/minictl/minictl/cluster/store/journal/journaltest"
	"github.com/minictl/minictl/testing/extstore"
)

// TestConformance runs against a real ZooKeeper, in whose eyes every check is another cluster.
func TestConformance(t *testing.T) {
	addr := extstore.FreeAddr(t)
	args, err := extstore.ZooKeeper(t.TempDir(), addr)
	if err != nil {
		t.Fatal(err)
	}
	extstore.Start(t, addr, args...)
	n := 0
	journaltest.Run(t, func(t *testing.T) func() journal.Remote {
		n++
		a := journal.Address{Hosts: []string{addr}, Prefix: fmt.Sprint("test/", n)}
		return func() journal.Remote {
			r := New(a)
			t.Cleanup(func() { _ = r.Close() })
			return r
		}
	})
}
