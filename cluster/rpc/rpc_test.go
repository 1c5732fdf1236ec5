package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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

// Anybody who reaches the port is a stranger: one must not be able to fill the memory, or to stay.
func TestStrangersGetLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &pipes{conns: make(chan net.Conn, 2), done: make(chan struct{})}
		s := NewServer(func(net.Conn) string { return "" }, slog.New(slog.DiscardHandler)).ForStrangers()
		Handle(s, "ask", func(_ context.Context, q question) (answer, error) { return answer{Text: q.Text}, nil })
		go s.Serve(l)
		c := NewClient(func(context.Context, string) (net.Conn, error) { return l.dial(), nil })
		if got, err := Call[question, answer](t.Context(), c, "node1", "ask", question{"hi"}, true); err != nil || got.Text != "hi" {
			t.Errorf("a small request: %+v, %v", got, err)
		}
		if _, err := Call[question, answer](t.Context(), c, "node1", "ask", question{strings.Repeat("x", 2<<20)}, true); err == nil {
			t.Error("2 MiB were read")
		}
		slow := l.dial()
		fmt.Fprintf(slow, "POST /v1/ask HTTP/1.1\r\nHost: node1\r\nContent-Length: 100\r\n\r\n{")
		began := time.Now()
		if _, err := io.Copy(io.Discard, slow); err != nil || time.Since(began) > time.Minute {
			t.Errorf("a request that does not end is waited for %v: %v", time.Since(began), err)
		}
		c.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// pipes is a listener in memory.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipes) dial() net.Conn {
	here, there := net.Pipe()
	p.conns <- there
	return here
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	close(p.done)
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

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
