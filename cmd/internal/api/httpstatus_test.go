package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
)

var errNotModified = errdefs.ErrNotModified

func notFound(format string, args ...any) error {
	return errdefs.ErrNotFound.WithMessage(fmt.Sprintf(format, args...))
}

func TestHTTPStatus(t *testing.T) {
	tests := map[string]struct {
		err  error
		want int
	}{
		"invalid":              {errdefs.ErrInvalidArgument, 400},
		"out of range":         {errdefs.ErrOutOfRange, 400},
		"unauthenticated":      {errdefs.ErrUnauthenticated, 401},
		"denied":               {errdefs.ErrPermissionDenied, 403},
		"not found":            {errdefs.ErrNotFound, 404},
		"exists":               {errdefs.ErrAlreadyExists, 409},
		"conflict":             {errdefs.ErrConflict, 409},
		"precondition":         {errdefs.ErrFailedPrecondition, 409},
		"not modified":         {errdefs.ErrNotModified, 304},
		"too large":            {fmt.Errorf("x: %w", &http.MaxBytesError{Limit: 1}), 413},
		"not implemented":      {errdefs.ErrNotImplemented, 501},
		"unavailable":          {errdefs.ErrUnavailable, 503},
		"exhausted":            {errdefs.ErrResourceExhausted, 500},
		"aborted":              {errdefs.ErrAborted, 500},
		"internal":             {errdefs.ErrInternal, 500},
		"data loss":            {errdefs.ErrDataLoss, 500},
		"unknown":              {errdefs.ErrUnknown, 500},
		"plain":                {errors.New("boom"), 500},
		"deadline":             {context.DeadlineExceeded, 500},
		"client gone":          {fmt.Errorf("pull: %w", context.Canceled), 499},
		"wrapped":              {fmt.Errorf("create network web: %w", errdefs.ErrAlreadyExists), 409},
		"outermost, two %w":    {fmt.Errorf("%w: network x: %w", errdefs.ErrInvalidArgument, errdefs.ErrNotFound), 400},
		"outermost, message":   {fmt.Errorf("%w (%w)", errdefs.ErrNotFound.WithMessage("no"), errdefs.ErrInvalidArgument), 404},
		"joined":               {errors.Join(errors.New("a"), errdefs.ErrUnavailable), 503},
		"message keeps class":  {errdefs.ErrConflict.WithMessage("in use"), 409},
		"docker's own classes": {dockerForbidden{}, 403},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := httpStatus(tt.err); got != tt.want {
				t.Errorf("httpStatus(%v) = %d, want %d", tt.err, got, tt.want)
			}
		})
	}
}

// dockerForbidden is an error class by method, as docker's libraries write them.
type dockerForbidden struct{}

func (dockerForbidden) Error() string { return "no" }
func (dockerForbidden) Forbidden()    {}

func TestMessage(t *testing.T) {
	tests := []struct {
		err  error
		want string
	}{
		{fmt.Errorf("No such container: x: %w", errdefs.ErrNotFound), "No such container: x"},
		{errdefs.ErrNotFound, "not found"},
		{errors.New("boom"), "boom"},
		{fmt.Errorf("%w: x", errdefs.ErrNotFound), "not found: x"},
		{errdefs.ErrConflict.WithMessage("in use"), "in use"},
		{fmt.Errorf("leave: %w: use --force", fmt.Errorf("nobody is alive: %w", errdefs.ErrUnavailable)), "leave: nobody is alive: use --force"},
		{fmt.Errorf("join: %w", fmt.Errorf("%w: %w", fmt.Errorf("no leader: %w", errdefs.ErrUnavailable), errdefs.ErrPermissionDenied)), "join: no leader"},
		{errors.Join(fmt.Errorf("a: %w", errdefs.ErrUnavailable), fmt.Errorf("b: %w", errdefs.ErrUnavailable)), "a\nb"},
		{fmt.Errorf("a: %w: %w", errdefs.ErrDataLoss, errdefs.ErrUnavailable), "a"},
		{errdefs.ErrInvalidArgument.WithMessage("runc: mount: invalid argument: unknown"), "runc: mount: invalid argument: unknown"},
		{fmt.Errorf("open x: %w", syscall.EACCES), "open x: permission denied"},
		{fmt.Errorf("wait: %w: %w", context.DeadlineExceeded, errdefs.ErrUnavailable), "wait: context deadline exceeded"},
	}
	for _, tt := range tests {
		if got := message(tt.err); got != tt.want {
			t.Errorf("message(%v) = %q, want %q", tt.err, got, tt.want)
		}
	}
}
