package raft

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/minictl/minictl/cluster/store"
)

// The numbers depend on the disk: each transaction waits for one commit of
// bbolt, which is two flushes.

func benchTxn(b *testing.B, s store.Store) {
	b.Run("one by one", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, err := s.Txn(b.Context(), put(fmt.Sprintf("k/%d", i%1000), "value")); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "txn/s")
	})
	b.Run("32 at once", func(b *testing.B) {
		var n atomic.Int64
		b.SetParallelism(16) // times the processors
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				if _, err := s.Txn(b.Context(), put(fmt.Sprintf("k/%d", n.Add(1)%1000), "value")); err != nil {
					b.Error(err)
					return
				}
			}
		})
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "txn/s")
	})
}

func BenchmarkTxnAlone(b *testing.B) { benchTxn(b, openAlone(b, b.TempDir())) }

// BenchmarkTxnForward is from a learner through the leader until the learner
// itself has applied it.
func BenchmarkTxnForward(b *testing.B) {
	benchTxn(b, newCluster(b, 2, 1).host("n2"))
}

func BenchmarkTxnForwardThreeVoters(b *testing.B) {
	f := newCluster(b, 3, 3)
	f.leader()
	benchTxn(b, f.host("n2"))
}

func BenchmarkFreshRange(b *testing.B) {
	for _, voters := range []int{1, 3} {
		b.Run(fmt.Sprintf("%d voters", voters), func(b *testing.B) {
			f := newCluster(b, 3, voters)
			leader := f.leader()
			for b.Loop() {
				if _, _, err := leader.Range(b.Context(), "k/", true); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpenWithLog(b *testing.B) {
	dir := b.TempDir()
	s := openAlone(b, dir)
	for i := range 3000 {
		if _, err := s.Txn(b.Context(), put(fmt.Sprintf("address/%d", i), "some value of a usual length, say a name and an address")); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s := openAlone(b, dir)
		if _, err := s.Txn(b.Context(), put("again", "x")); err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
