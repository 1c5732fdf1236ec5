package engine

import (
	"context"
	"errors"
	"testing"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/minictl/minictl/cluster/store/memstore"
	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/runtime/image"
)

// slowRuntime takes its time to make a container, and fails.
type slowRuntime struct {
	Runtime
	making, fail chan struct{}
}

func (r *slowRuntime) Image(context.Context, string) (image.Image, error) {
	return image.Image{ID: "sha256:1", Config: ocispec.Image{Config: ocispec.ImageConfig{Cmd: []string{"sh"}}}}, nil
}

func (r *slowRuntime) Create(context.Context, string, string, map[string]string) error {
	close(r.making)
	<-r.fail
	return errors.New("no room")
}

func (r *slowRuntime) Remove(context.Context, string) error { return nil }

// A container is found by its name before all of it is there: whoever does so waits, and learns what has become of it.
func TestContainerThatIsBeingMade(t *testing.T) {
	e := newHost(t, memstore.New(), "a")
	rt := &slowRuntime{making: make(chan struct{}), fail: make(chan struct{})}
	e.rt = rt
	made := make(chan error, 1)
	go func() {
		_, err := e.ContainerCreate(t.Context(), "web", api.CreateOptions{}, mobycontainer.CreateRequest{Config: &mobycontainer.Config{Image: "busybox"}})
		made <- err
	}()
	<-rt.making
	b, err := e.find("web")
	if err != nil {
		t.Fatal(err)
	}
	if b.op.TryLock() {
		t.Error("a step may begin on half a container")
		b.op.Unlock()
	}
	removed, err := e.ContainerWait(t.Context(), "web", mobycontainer.WaitConditionRemoved)
	if err != nil {
		t.Fatal(err)
	}
	close(rt.fail)
	if err := <-made; err == nil {
		t.Fatal("made without room")
	}
	if len(removed) != 1 {
		t.Error("who waits for its end waits for ever")
	}
	if _, err := e.ContainerStart(t.Context(), "web"); !errdefs.IsNotFound(err) {
		t.Errorf("start: %v", err)
	}
	b.op.Lock()
	defer b.op.Unlock()
	if !b.removed {
		t.Error("who had found it before does not know that it is no more")
	}
}
