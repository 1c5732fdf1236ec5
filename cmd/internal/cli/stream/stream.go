// Package stream joins the user's terminal to a container's standard streams: raw mode and its restoration, the
// detach keys, the terminal's size, and signals passed on.
package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/docker/cli/cli/streams"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
	"github.com/moby/term"
)

// DefaultDetachKeys is docker's sequence.
const DefaultDetachKeys = "ctrl-p,ctrl-q"

// ErrDetached says that the user typed the detach keys: the container goes on without us.
var ErrDetached = errors.New("detached from the container")

// Session is one attachment. In nil sends nothing; Out or Err nil drop that stream.
type Session struct {
	In       *streams.In
	Out, Err io.Writer
	Conn     client.HijackedResponse
	TTY      bool // one raw stream instead of docker's frames, and a raw terminal on our side
	// DetachKeys is docker's notation; empty means DefaultDetachKeys. Only a TTY session looks for them.
	DetachKeys string
}

// CheckDetachKeys refuses a sequence that the terminal package cannot read.
func CheckDetachKeys(keys string) error {
	if keys == "" {
		return nil
	}
	if _, err := term.ToBytes(keys); err != nil {
		return fmt.Errorf("detach keys %q: %w: want for example %q", keys, err, DefaultDetachKeys)
	}
	return nil
}

// Run copies until the container's output ends, the user detaches (ErrDetached), or ctx ends. The terminal is in its
// former state when Run returns, however it returns.
func (s *Session) Run(ctx context.Context) error {
	input, restore, err := s.prepareInput()
	if err != nil {
		return err
	}
	defer restore()

	output := make(chan error, 1)
	go func() { output <- s.copyOutput() }()
	stdin := make(chan error, 1)
	go func() { stdin <- s.copyInput(input) }()

	for {
		select {
		case err := <-output:
			return err
		case err := <-stdin:
			if errors.Is(err, ErrDetached) {
				return err
			}
			if s.Out == nil && s.Err == nil {
				return nil
			}
			// End of input is not the end: the output may go on for long.
			stdin = nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// prepareInput sets the terminal raw and puts the detach-key watcher in front of it.
func (s *Session) prepareInput() (io.Reader, func(), error) {
	nothing := func() {}
	if s.In == nil {
		return nil, nothing, nil
	}
	if !s.TTY {
		return s.In, nothing, nil
	}
	keys := s.DetachKeys
	if keys == "" {
		keys = DefaultDetachKeys
	}
	sequence, err := term.ToBytes(keys)
	if err != nil {
		return nil, nothing, fmt.Errorf("detach keys %q: %w", keys, err)
	}
	if err := s.In.SetRawTerminal(); err != nil {
		return nil, nothing, fmt.Errorf("set the terminal raw: %w", err)
	}
	return term.NewEscapeProxy(s.In, sequence), sync.OnceFunc(s.In.RestoreTerminal), nil
}

// copyOutput drops a stream that is not wanted and still reads it: the frames of both come over one connection.
func (s *Session) copyOutput() error {
	out, errs := s.Out, s.Err
	if out == nil {
		out = io.Discard
	}
	if errs == nil {
		errs = io.Discard
	}
	var err error
	if s.TTY {
		_, err = io.Copy(out, s.Conn.Reader)
	} else {
		_, err = stdcopy.StdCopy(out, errs, s.Conn.Reader)
	}
	return err
}

// copyInput ends with a half-close, which is the container's end of file.
func (s *Session) copyInput(in io.Reader) error {
	if in != nil {
		var escape term.EscapeError
		// A failed write shows on the reading side too, where it is reported.
		if _, err := io.Copy(s.Conn.Conn, in); errors.As(err, &escape) {
			return ErrDetached
		}
	}
	return s.Conn.CloseWrite()
}
