package raft

import "testing"

// TestProspect: a learner counts on its leader, doubts it when it falls silent and before raft gives it up, and counts on
// it again when it is back; who is alone always counts on itself.
func TestProspect(t *testing.T) {
	checkLeaks(t)
	f := newCluster(t, 2, 1)
	n1, n2 := f.host("n1"), f.host("n2")
	eventually(t, "n2 counts on its leader", func() bool { return n2.Prospect() == Answered && !n2.LastContact().IsZero() })
	f.isolate("n1", true)
	eventually(t, "n2 does not count on it any more", func() bool {
		p := n2.Prospect()
		if _, known := n2.Leader(); known && p == Hopeless && n2.Prospect() == Hopeless {
			if _, known := n2.Leader(); known {
				t.Error("hopeless with a leader")
			}
		}
		return p != Answered
	})
	eventually(t, "n2 has no hope", func() bool { return n2.Prospect() == Hopeless })
	if led := n2.LastLeader(); led != "n1" {
		t.Errorf("n2 takes %q for who led last", led)
	}
	if p := n1.Prospect(); p != Answered {
		t.Errorf("the only voter: %d", p)
	}
	f.isolate("n1", false)
	eventually(t, "n2 counts on it again", func() bool { return n2.Prospect() == Answered })
}

// TestProspectOfAnIsolatedLeader: one of three that lead alone finds out that it leads nobody.
func TestProspectOfAnIsolatedLeader(t *testing.T) {
	checkLeaks(t)
	f := newCluster(t, 3, 3)
	old := f.leader()
	f.isolate(old.node, true)
	eventually(t, "the isolated leader has no hope", func() bool { return old.Prospect() == Hopeless })
	if led := old.LastLeader(); led != old.node {
		t.Errorf("it takes %q for who led last", led)
	}
	f.isolate(old.node, false)
	eventually(t, "it follows another", func() bool { return old.Prospect() == Answered })
}
