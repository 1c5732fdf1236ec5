package engine

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// classed is an error whose text is docker's own, word for word, and whose class gives the HTTP status.
type classed struct {
	text  string
	class error
}

// Error gives the text alone: clients match on it.
func (e *classed) Error() string { return e.text }

// Unwrap gives the class.
func (e *classed) Unwrap() error { return e.class }

func notFound(format string, a ...any) error {
	return &classed{fmt.Sprintf(format, a...), errdefs.ErrNotFound}
}

func invalid(format string, a ...any) error {
	return &classed{fmt.Sprintf(format, a...), errdefs.ErrInvalidArgument}
}

func conflict(format string, a ...any) error {
	return &classed{fmt.Sprintf(format, a...), errdefs.ErrConflict}
}

func forbidden(format string, a ...any) error {
	return &classed{fmt.Sprintf(format, a...), errdefs.ErrPermissionDenied}
}

func unsupported(format string, a ...any) error {
	return &classed{fmt.Sprintf(format, a...), errdefs.ErrNotImplemented}
}

func unavailable(format string, a ...any) error {
	return &classed{fmt.Sprintf(format, a...), errdefs.ErrUnavailable}
}
