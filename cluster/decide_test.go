package cluster

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestStandingOfWhoLed: a host that led alone all the time, and loses the others, says since when nobody decides, and not that
// it has heard no leader since it started.
func TestStandingOfWhoLed(t *testing.T) {
	t.Parallel()
	dir := memDir(t)
	synctest.Test(t, func(t *testing.T) {
		s := &simulation{t: t, net: newMemNet(), began: time.Now()}
		defer s.closeAll()
		for i := range 3 {
			s.add(dir, 1, i)
		}
		a := s.hosts[0]
		pass(time.Minute)
		if st := a.up().Standing(); !st.Decides || st.Led != a.up().Self().ID {
			t.Fatalf("it leads: %+v", st)
		}
		s.cutOff(a, true)
		pass(10 * time.Second)
		st := a.up().Standing()
		if silent := time.Since(st.Since); st.Decides || st.Led != a.up().Self().ID || silent < 5*time.Second || silent > 10*time.Second {
			t.Errorf("it has led, silent for %v: %+v", silent, st)
		}
	})
}
