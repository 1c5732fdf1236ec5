package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/common"
)

// invalid makes an error of the class that becomes a 400. The text goes to the client as it stands.
func invalid(format string, args ...any) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
}

// notImplemented makes an error that becomes a 501.
func notImplemented(format string, args ...any) error {
	return errdefs.ErrNotImplemented.WithMessage(fmt.Sprintf(format, args...))
}

// maxMessage bounds what a client reads of an error, in bytes: the name in it may be a megabyte of the client's own.
const maxMessage = 4 << 10

// message is what the client reads. The class's own word at the end ("…: invalid argument") says what the status says
// already, and docker's texts are compared to the letter by tools, so it is dropped.
func message(err error) string {
	text := err.Error()
	if len(text) > maxMessage {
		return strings.ToValidUTF8(text[:maxMessage], "") + "…"
	}
	if class := errdefs.Resolve(err); class != nil {
		if short, ok := strings.CutSuffix(text, ": "+class.Error()); ok && short != "" {
			return short
		}
	}
	return text
}

// writeJSON answers with v. A failure to write means that the client is gone; there is nobody to tell.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v)
	return nil
}

// writeError answers with docker's {"message": …}. 304 carries no body.
func writeError(w http.ResponseWriter, status int, text string) {
	if status == http.StatusNotModified {
		w.WriteHeader(status)
		return
	}
	_ = writeJSON(w, status, common.ErrorResponse{Message: text})
}

// orEmpty keeps nil lists from becoming null: docker answers [] and some clients iterate without looking.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
