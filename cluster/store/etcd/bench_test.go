package etcd

import (
	"fmt"
	"sync"
	"testing"

	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/cluster/store/journal"
	"github.com/minictl/minictl/testing/extstore"
)

// BenchmarkTxn is transactions of one host, and of five that write at once.
func BenchmarkTxn(b *testing.B) {
	addr := extstore.FreeAddr(b)
	extstore.Start(b, addr, extstore.Etcd(b.TempDir(), addr)...)
	for _, hosts := range []int{1, 5} {
		b.Run(fmt.Sprint(hosts), func(b *testing.B) {
			var stores []*journal.Store
			for i := range hosts {
				r := New(journal.Address{Hosts: []string{addr}, Prefix: fmt.Sprint("bench/", hosts)})
				s := journal.Open(journal.Config{Remote: r, Name: "etcd", By: fmt.Sprint(i)})
				b.Cleanup(func() { _, _ = s.Close(), r.Close() })
				stores = append(stores, s)
			}
			work := make(chan int)
			var wg sync.WaitGroup
			done := make([]int, hosts)
			for n, s := range stores {
				wg.Go(func() {
					for i := range work {
						if _, err := s.Txn(b.Context(), store.Txn{Then: []store.Op{{Key: fmt.Sprintf("k%d", i%1000), Value: []byte("v")}}}); err != nil {
							b.Error(err)
						}
						done[n]++
					}
				})
			}
			for i := 0; b.Loop(); i++ {
				work <- i
			}
			close(work)
			wg.Wait()
			b.Logf("each: %v", done)
		})
	}
}
