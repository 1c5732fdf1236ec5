package rpc

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
)

// maxText bounds an error's text that another host sends.
const maxText = 4096

// Error is what another host said. Its text is complete; errors.Is finds its class.
type Error struct {
	Class   string `json:"class"`
	Message string `json:"message"`
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// Unwrap gives the error its class; a class from a newer host that this one does not know is errdefs.ErrUnknown.
func (e *Error) Unwrap() error {
	for _, c := range classes {
		if c.name == e.Class {
			return c.err
		}
	}
	return errdefs.ErrUnknown
}

// classes is the table of what crosses the wire, most specific first.
var classes = []struct {
	name string
	err  error
}{
	{"conflict", errdefs.ErrConflict},
	{"already-exists", errdefs.ErrAlreadyExists},
	{"not-found", errdefs.ErrNotFound},
	{"permission-denied", errdefs.ErrPermissionDenied},
	{"unauthenticated", errdefs.ErrUnauthenticated},
	{"failed-precondition", errdefs.ErrFailedPrecondition},
	{"invalid-argument", errdefs.ErrInvalidArgument},
	{"resource-exhausted", errdefs.ErrResourceExhausted},
	{"unavailable", errdefs.ErrUnavailable},
	{"deadline-exceeded", context.DeadlineExceeded},
	{"canceled", context.Canceled},
	{"not-implemented", errdefs.ErrNotImplemented},
	{"data-loss", errdefs.ErrDataLoss},
}

// toError gives err the form in which it crosses the wire.
func toError(err error) *Error {
	e := &Error{Class: "unknown", Message: err.Error()}
	if len(e.Message) > maxText {
		e.Message = e.Message[:maxText]
	}
	for _, c := range classes {
		if errors.Is(err, c.err) {
			e.Class = c.name
			break
		}
	}
	return e
}

// decodeError reads an error's body; what cannot be read is an error as well.
func decodeError(b []byte, status int) error {
	var e Error
	if err := decode(b, &e); err != nil || e.Message == "" {
		return fmt.Errorf("status %d and no readable error: %w", status, errdefs.ErrUnknown)
	}
	if len(e.Message) > maxText {
		e.Message = e.Message[:maxText]
	}
	return &e
}
