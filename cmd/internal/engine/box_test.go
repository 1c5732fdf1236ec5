package engine

import (
	"context"
	"encoding/json"

	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
	bolt "go.etcd.io/bbolt"

	"github.com/minictl/minictl/cluster/store/memstore"
	"github.com/minictl/minictl/runtime/container"
)

// newBox is a container of e that exists and does not run.

func newBox(t *testing.T, e *Engine, name string) *box {
	t.Helper()
	b := &box{id: newID(), spec: container.Spec{Name: name, Config: &mobycontainer.Config{}, HostConfig: &mobycontainer.HostConfig{}}}
	b.spec.ID, b.status.State = b.id, mobycontainer.StateCreated
	if err := e.claim(b); err != nil {
		t.Fatal(err)
	}
	return b
}

// A rename that had to wait for a removal must not give a name to nothing: whoever asks for it would find a box that is nil.

func TestRenameOfAContainerThatIsRemovedMeanwhile(t *testing.T) {
	e := newHost(t, memstore.New(), "a")
	b := newBox(t, e, "old")
	b.removed = true // as it is for who found it before and has waited for its lock
	if err := e.ContainerRename(t.Context(), "old", "new"); !errdefs.IsNotFound(err) {
		t.Errorf("rename: %v", err)
	}
	if b, err := e.find("new"); !errdefs.IsNotFound(err) {
		t.Errorf("found %v, %v", b, err)
	}
}

// What is on disk is what was so last, whoever comes to write first.

func TestStatusOnDiskIsTheLast(t *testing.T) {
	e := newHost(t, memstore.New(), "a")
	b := newBox(t, e, "busy")
	other, err := e.state.db.Begin(true)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { e.update(b, func(s *container.Status) { s.RestartCount = 1 }) })
	eventually(t, "the first is about to write", func() bool { return b.statusCopy().RestartCount == 1 })
	b.mu.Lock()
	b.status.RestartCount = 2
	b.mu.Unlock()
	if err := other.Rollback(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	err = e.state.db.View(func(tx *bolt.Tx) error {
		var r record
		if err := json.Unmarshal(tx.Bucket([]byte("containers")).Get([]byte(b.id)), &r); err != nil {
			return err
		}
		if r.Status.RestartCount != 2 {
			t.Errorf("%d on disk, 2 in memory", r.Status.RestartCount)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestWaitEndsWithItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &box{status: container.Status{State: mobycontainer.StateRunning}}
		ctx, cancel := context.WithCancel(t.Context())
		b.wait(ctx, mobycontainer.WaitConditionNextExit)
		stays := b.wait(t.Context(), mobycontainer.WaitConditionNextExit)
		cancel()
		synctest.Wait()
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.waits) != 1 {
			t.Fatalf("%d waits", len(b.waits))
		}
		b.answerWaits(false)
		if len(stays) != 1 {
			t.Error("the other one has no answer")
		}
	})
}

// A container writes its own passwd: what is no file must not keep the daemon waiting.

// An earlier container's end may be noticed while a later one is still taken up.

// eventually asks again until it is so.

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within a minute: %s", what)
		}
	}
}
