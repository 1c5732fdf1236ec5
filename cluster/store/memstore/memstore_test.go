package memstore_test

import (
	"testing"

	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/cluster/store/memstore"
	"github.com/minictl/minictl/cluster/store/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) []store.Store {
		s := memstore.New()
		t.Cleanup(func() { _ = s.Close() })
		return []store.Store{s}
	})
}
