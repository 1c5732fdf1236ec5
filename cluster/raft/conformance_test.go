package raft

import (
	"testing"

	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/cluster/store/storetest"
)

func TestConformance(t *testing.T) {
	t.Run("alone", func(t *testing.T) {
		t.Parallel()
		storetest.Run(t, func(t *testing.T) []store.Store {
			return []store.Store{openAlone(t, t.TempDir())}
		})
	})
	t.Run("voter and two learners", func(t *testing.T) {
		t.Parallel()
		storetest.Run(t, func(t *testing.T) []store.Store { return newCluster(t, 3, 1).stores() })
	})
	t.Run("three voters", func(t *testing.T) {
		t.Parallel()
		storetest.Run(t, func(t *testing.T) []store.Store { return newCluster(t, 3, 3).stores() })
	})
}
