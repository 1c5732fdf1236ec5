package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
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

// message is what the client reads.
func message(err error) string {
	text := Sentence(err)
	if len(text) > maxMessage {
		return strings.ToValidUTF8(text[:maxMessage], "") + "…"
	}
	return text
}

// Sentence is an error as people read it. A class's own word ("…: invalid argument") says what the status says already, and
// docker's texts are compared to the letter by tools, so it is dropped.
func Sentence(err error) string {
	text := withoutClasses(err)
	if class := errdefs.Resolve(err); isClass(class) {
		text = withoutWord(text, class.Error())
	}
	return text
}

// withoutClasses looks at what the text was made of: "open x: permission denied" keeps the kernel's word, which is no class's.
func withoutClasses(err error) string {
	text := err.Error()
	for _, cause := range slices.Backward(causes(err)) { // two classes' words at the end go one after the other
		whole := cause.Error()
		if isClass(cause) {
			text = withoutWord(text, whole)
		} else if short := withoutClasses(cause); short != whole {
			text = strings.Replace(text, whole, short, 1)
		}
	}
	return text
}

func causes(err error) []error {
	switch e := err.(type) { //nolint:errorlint // one step down, not to the end
	case interface{ Unwrap() error }:
		if cause := e.Unwrap(); cause != nil {
			return []error{cause}
		}
	case interface{ Unwrap() []error }:
		return e.Unwrap()
	}
	return nil
}

// isClass knows errdefs' own errors. That a time is over, or somebody has gone, is news.
func isClass(err error) bool {
	return errdefs.Resolve(err) == err && err != context.Canceled && err != context.DeadlineExceeded //nolint:errorlint // not one that wraps it
}

// withoutWord drops a word from a text's end. Within a text that was not put together here it may be runc's.
func withoutWord(text, word string) string {
	if short, ok := strings.CutSuffix(text, ": "+word); ok && short != "" {
		return short
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
