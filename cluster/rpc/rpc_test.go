package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"
)

type question struct{ Text string }
type answer struct{ Text, From string }

// serve starts a server with a call "ask" and returns a client of it and the number of connections made.
func serve(t *testing.T, ask func(context.Context, question) (answer, error)) (*Client, *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(func(net.Conn) string { return "peer1" }, slog.New(slog.DiscardHandler))
	Handle(s, "ask", ask)
	go s.Serve(l)
	var dials atomic.Int32
	c := NewClient(func(ctx context.Context, id string) (net.Conn, error) {
		dials.Add(1)
		if id != "node1" {
			return nil, fmt.Errorf("no such node: %w", errdefs.ErrNotFound)
		}
		return (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String())
	})
	t.Cleanup(func() {
		c.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return c, &dials
}

func TestCallsShareAConnection(t *testing.T) {
	c, dials := serve(t, func(ctx context.Context, q question) (answer, error) { return answer{q.Text + "!", Peer(ctx)}, nil })
	for range 3 {
		got, err := Call[question, answer](t.Context(), c, "node1", "ask", question{"hi"}, true)
		if err != nil || got != (answer{"hi!", "peer1"}) {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	if dials.Load() != 1 {
		t.Errorf("%d connections", dials.Load())
	}
}

func TestErrorsCrossTheWire(t *testing.T) {
	var answers error
	c, _ := serve(t, func(context.Context, question) (answer, error) { return answer{}, answers })
	for _, class := range classes {
		answers = fmt.Errorf("do it: %w", class.err)
		_, err := Call[question, answer](t.Context(), c, "node1", "ask", question{}, true)
		if !errors.Is(err, class.err) || err.Error() != answers.Error() {
			t.Errorf("%s: %v", class.name, err)
		}
	}
	answers = errors.New(strings.Repeat("x", 2*maxText))
	_, err := Call[question, answer](t.Context(), c, "node1", "ask", question{}, true)
	if !errors.Is(err, errdefs.ErrUnknown) || len(err.Error()) != maxText {
		t.Errorf("long and unknown: %d bytes, %v", len(err.Error()), errors.Is(err, errdefs.ErrUnknown))
	}
}

func TestNobodyAnswers(t *testing.T) {
	started := make(chan struct{}, 1)
	c, _ := serve(t, func(ctx context.Context, _ question) (answer, error) {
		started <- struct{}{}
		<-ctx.Done() // the caller's going ends the call here
		return answer{}, ctx.Err()
	})
	if _, err := Call[question, answer](t.Context(), c, "node2", "ask", question{}, true); !errdefs.IsUnavailable(err) || !errdefs.IsNotFound(err) {
		t.Errorf("no such node: %v", err)
	}
	if _, err := Call[question, answer](t.Context(), c, "node1", "unheard", question{}, true); err == nil {
		t.Error("an unknown call was answered")
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-started; cancel() }()
	if _, err := Call[question, answer](ctx, c, "node1", "ask", question{}, true); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func FuzzDecodeError(f *testing.F) {
	b, _ := json.Marshal(Error{"conflict", "key taken"})
	f.Add(b)
	f.Add([]byte(`null`))
	f.Add([]byte(`{"class":"x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		err := decodeError(b, 500)
		if err == nil || err.Error() == "" || len(err.Error()) > maxText {
			t.Fatalf("%q: %v", b, err)
		}
	})
}
