package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/containerd/errdefs"
)

// httpStatus gives the status for an error of a back end. The outermost errdefs class decides, so that
// "invalid argument: network x: not found" is a 400: errdefs.Is… alone would call it whichever is asked first.
//
// FailedPrecondition is 409: docker answers 409 whenever the object is in the wrong state for the wish (container not
// running, paused, still in use), and its clients treat 412 as an unknown error. Classes without a row are 500.
func httpStatus(err error) int {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return http.StatusRequestEntityTooLarge
	}
	switch errdefs.Resolve(err) {
	case errdefs.ErrNotModified: //nolint:errorlint // Resolve gives the class itself, never a wrapped one
		return http.StatusNotModified
	case errdefs.ErrInvalidArgument, errdefs.ErrOutOfRange:
		return http.StatusBadRequest
	case errdefs.ErrUnauthenticated:
		return http.StatusUnauthorized
	case errdefs.ErrPermissionDenied:
		return http.StatusForbidden
	case errdefs.ErrNotFound:
		return http.StatusNotFound
	case errdefs.ErrAlreadyExists, errdefs.ErrConflict, errdefs.ErrFailedPrecondition:
		return http.StatusConflict
	case errdefs.ErrNotImplemented:
		return http.StatusNotImplemented
	case errdefs.ErrUnavailable:
		return http.StatusServiceUnavailable
	case context.Canceled:
		// The client went away, so nobody reads this; nginx's code keeps it apart from our own failures in the log.
		return statusClientClosedRequest
	default:
		return http.StatusInternalServerError
	}
}

// statusClientClosedRequest is nginx's number for a client that left before the answer.
const statusClientClosedRequest = 499
