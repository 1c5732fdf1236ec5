package engine

import (
	"bytes"
	"slices"
	"sync"

	"github.com/moby/term"

	"github.com/minictl/minictl/cmd/internal/api"
)

// defaultEscape is what users know from docker.
const defaultEscape = "ctrl-p,ctrl-q"

// escapeKeys reads the detach keys that a client asks for. It is asked before there is a stream to leave.
func escapeKeys(keys string) ([]byte, error) {
	if keys == "" {
		keys = defaultEscape
	}
	escape, err := term.ToBytes(keys)
	if err != nil {
		return nil, invalid("Invalid detach keys (%s) provided", keys)
	}
	return escape, nil
}

// escapable lets a client on a terminal leave by typing the detach keys: the stream closes, left is called, the process goes
// on.
func escapable(s api.Stream, tty bool, keys []byte, left func()) api.Stream {
	if !tty {
		return s
	}
	return &escapeStream{Stream: s, keys: keys, left: sync.OnceFunc(left)}
}

// escapeStream watches what is typed. Keys that may be the beginning of the sequence wait until it is clear whether they
// are.
type escapeStream struct {
	api.Stream
	keys []byte
	held []byte
	left func()
}

// Write types; the detach keys close the stream.
func (s *escapeStream) Write(p []byte) (int, error) {
	pass, held, detach := scanEscape(s.keys, slices.Concat(s.held, p))
	s.held = held
	if len(pass) > 0 {
		if _, err := s.Stream.Write(pass); err != nil {
			return 0, err
		}
	}
	if detach {
		s.left()
		return len(p), s.Stream.Close()
	}
	return len(p), nil
}

// scanEscape splits what was typed into what goes on, what may be the start of the keys, and whether they were typed.
func scanEscape(keys, typed []byte) (pass, held []byte, detach bool) {
	if i := bytes.Index(typed, keys); i >= 0 {
		return typed[:i], nil, true
	}
	for n := min(len(keys)-1, len(typed)); n > 0; n-- {
		if bytes.HasSuffix(typed, keys[:n]) {
			return typed[:len(typed)-n], typed[len(typed)-n:], false
		}
	}
	return typed, nil, false
}
