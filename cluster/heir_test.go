package cluster

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestDeafHeir: the first host that the leader would hand over to hears what it is told and cannot answer, and nobody has
// noticed yet. The leader leaves all the same: there is another.
func TestDeafHeir(t *testing.T) {
	dir := memDir(t)
	synctest.Test(t, func(t *testing.T) {
		s := &simulation{t: t, net: newMemNet(), began: time.Now(), did: map[string]int{}}
		defer s.closeAll()
		for i := range 3 {
			s.add(dir, 1, i)
		}
		for len(s.hosts[0].cluster.heirs(0)) < 2 || !s.hosts[0].cluster.heirs(0)[1].Voter { // until all vote
			time.Sleep(time.Second) //nolint:forbidigo // of the bubble
		}
		leader := s.hosts[0].cluster
		heir := leader.heirs(0)[0].ID
		s.net.change(func(cuts map[link]bool) {
			for _, h := range s.hosts {
				if string(h.cluster.Self().ID) != heir {
					continue
				}
				for _, o := range s.hosts {
					cuts[link{h.addr.Addr(), o.addr.Addr()}] = o != h
				}
			}
		})
		if err := leader.Leave(t.Context(), false); err != nil {
			t.Error(err)
		}
	})
}
