package cluster

import (
	"sync"
	"testing"
)

// TestOneBringsAMemberUpToDate: however often a member was late, one goroutine calls it, and once more for all that came
// meanwhile. Other members do not wait for that.
func TestOneBringsAMemberUpToDate(t *testing.T) {
	e := newEvents(nil)
	var wg sync.WaitGroup
	began, answer := make(chan NodeID, 20), make(chan struct{})
	bring := func(id NodeID) {
		e.bring(&wg, id, func(<-chan struct{}) {
			began <- id
			<-answer
		})
	}
	for range 10 {
		bring("slow")
	}
	<-began
	bring("other")
	if id := <-began; id != "other" {
		t.Errorf("began with %s a second time while the first went on", id)
	}
	close(answer)
	wg.Wait()
	if n := len(began); n != 1 {
		t.Errorf("brought up to date %d times more, want once", n)
	}
	bring("slow")
	wg.Wait()
	if n := len(began); n != 2 {
		t.Error("not brought up to date when it was late again")
	}
}
