package engine

import (
	"errors"

	"testing"

	"github.com/containerd/errdefs"
	mobycontainer "github.com/moby/moby/api/types/container"

	"github.com/minictl/minictl/cluster/store/memstore"
	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/runtime/ctrd"
)

func TestWrongDetachKeysAreRefusedBeforeAnythingIsAttached(t *testing.T) {
	e := newHost(t, memstore.New(), "a")
	b := newBox(t, e, "tty")
	b.spec.Config.Tty, b.spec.Config.OpenStdin = true, true
	_, err := e.ContainerAttach(t.Context(), "tty", api.AttachOptions{Stream: true, Stdin: true, Stdout: true, DetachKeys: "ctrl-nothing"})
	if !errdefs.IsInvalidArgument(err) || len(b.late) > 0 {
		t.Errorf("attach: %v, %d wait for the start", err, len(b.late))
	}
	b.status.State = mobycontainer.StateRunning
	if _, err := e.ExecCreate(t.Context(), "tty", mobycontainer.ExecCreateRequest{Cmd: []string{"sh"}, Tty: true, DetachKeys: "ctrl-nothing"}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("exec: %v", err)
	}
}

type countedStream struct {
	emptyStream
	closed int
}

func (s *countedStream) Close() error { s.closed++; return nil }

func TestClientsThatAttachedBeforeTheStart(t *testing.T) {
	gone := newLateStream(ctrd.AttachOptions{})
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	here, fails, after := newLateStream(ctrd.AttachOptions{Stdout: true}), newLateStream(ctrd.AttachOptions{Stderr: true}), newLateStream(ctrd.AttachOptions{})
	var streams []*countedStream
	refused := errors.New("refused")
	err := connectAll([]*lateStream{gone, here, fails, after}, func(o ctrd.AttachOptions) (ctrd.Stream, error) {
		if o.Stderr {
			return nil, refused
		}
		streams = append(streams, &countedStream{})
		return streams[len(streams)-1], nil
	})
	if !errors.Is(err, refused) {
		t.Errorf("err = %v", err)
	}
	if len(streams) != 1 || streams[0].closed != 0 {
		t.Errorf("streams of one who has gone and one who is here: %+v", streams)
	}
	for name, l := range map[string]*lateStream{"the one that failed": fails, "the one after it": after} {
		select {
		case <-l.ready:
		default:
			t.Errorf("%s waits for ever", name)
		}
	}
	// One who goes in the moment of the start.
	going, s := newLateStream(ctrd.AttachOptions{}), &countedStream{}
	close(going.closed)
	going.connect(s)
	if s.closed == 0 {
		t.Error("the stream of one who has gone stays open")
	}
}
