package etcd

import (
	"fmt"
	"testing"

	"github.com/minictl/minictl/cluster/store/journal"
	"github.com/minictl/minictl/cluster/store/journal/journaltest"
	"github.com/minictl/minictl/testing/extstore"
)

// TestConformance runs against a real etcd, in whose eyes every check is another cluster.
func TestConformance(t *testing.T) {
	addr := extstore.FreeAddr(t)
	extstore.Start(t, addr, extstore.Etcd(t.TempDir(), addr)...)
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
