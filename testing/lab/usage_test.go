package lab

import (
	"testing"
	"time"
)

func TestCPUCountsEndedProcesses(t *testing.T) {
	l := New(t)
	h := l.Host("host1")
	idle := l.Host("host2")
	before, err := l.CPU()
	if err != nil {
		t.Fatal(err)
	}
	busyBefore, err := h.CPU()
	if err != nil {
		t.Fatal(err)
	}
	idleBefore, err := idle.CPU()
	if err != nil {
		t.Fatal(err)
	}
	p := h.Start("sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done")
	if _, err := p.Wait(patience); err != nil {
		t.Fatal(err)
	}
	after, err := l.CPU()
	if used := after - before; err != nil || used < 10*time.Millisecond || used > patience {
		t.Errorf("a loop of 200000 turns used %v: %v", used, err)
	}
	if busy, err := h.CPU(); err != nil || busy-busyBefore < 10*time.Millisecond {
		t.Errorf("of which its own host has %v: %v", busy-busyBefore, err)
	}
	if other, err := idle.CPU(); err != nil || other-idleBefore >= after-before {
		t.Errorf("the other host, which did nothing, used %v: %v", other-idleBefore, err)
	}
}
