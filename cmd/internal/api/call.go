package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// maxJSONBody bounds every JSON body, in bytes. The largest honest one, a container with a long environment, is far
// below what execve would take.
const maxJSONBody = 4 << 20

// call is one request: what the path and the query said, and how to read the body.
type call struct {
	*http.Request
	name    string // what the pattern's wildcard holds
	version apiVersion
	query   url.Values
}

// text gives a query parameter, "" if absent.
func (c *call) text(key string) string { return c.query.Get(key) }

// flag reads a truth value the way docker does: absent, 0, no, false and none are false, all else is true.
func (c *call) flag(key string) bool {
	switch strings.ToLower(strings.TrimSpace(c.query.Get(key))) {
	case "", "0", "no", "false", "none":
		return false
	default:
		return true
	}
}

// number reads an optional whole number; nil if absent.
func (c *call) number(key string) (*int, error) {
	s := c.query.Get(key)
	if s == "" {
		return nil, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return nil, invalid("invalid value %s for %q: must be a whole number", shown(s), key)
	}
	return &n, nil
}

// size reads one side of a terminal, in characters.
func (c *call) size(key, what string) (uint32, error) {
	n, err := strconv.ParseUint(c.query.Get(key), 10, 32)
	if err != nil {
		return 0, invalid("invalid resize %s %s: %v", what, shown(c.query.Get(key)), errors.Unwrap(err))
	}
	return uint32(n), nil
}

// filters reads the filters parameter.
func (c *call) filters() (Filters, error) { return parseFilters(c.query.Get("filters")) }

// since tells whether the client speaks at least API 1.minor.
func (c *call) since(minor int) bool { return !c.version.less(apiVersion{1, minor}) }

// detached is the context for changes: a client that leaves must not leave half a container behind, so its departure
// does not cancel them; only the server's end does, after its grace.
func (c *call) detached() (context.Context, context.CancelFunc) { return c.without(hardStop{}) }

// streaming is the context for a taken-over connection. It ends with the server but not by net/http's hand: that takes
// a client's half-close, sent before the answer, for its departure.
func (c *call) streaming() (context.Context, context.CancelFunc) { return c.without(softStop{}) }

// without drops the request's cancellation and takes that of one of Serve's contexts instead.
func (c *call) without(key any) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.Context()))
	life, ok := c.Context().Value(key).(context.Context)
	if !ok {
		return ctx, cancel
	}
	stop := context.AfterFunc(life, cancel)
	return ctx, func() { stop(); cancel() }
}

// do carries out what answers with a status alone, to its end even if the client goes away.
func (c *call) do(w http.ResponseWriter, status int, what func(ctx context.Context) error) error {
	ctx, cancel := c.detached()
	defer cancel()
	if err := what(ctx); err != nil {
		return err
	}
	w.WriteHeader(status)
	return nil
}

// softStop and hardStop are the keys of Serve's two contexts: one ends when serving should stop, the other after the
// grace that follows.
type (
	softStop struct{}
	hardStop struct{}
)

// body decodes a JSON body into v. An absent body leaves v alone, as docker does.
func (c *call) body(w http.ResponseWriter, v any) error {
	if err := c.checkJSON(); err != nil {
		return err
	}
	if c.Body == nil || c.Body == http.NoBody || c.ContentLength == 0 {
		return nil
	}
	return decodeJSON(http.MaxBytesReader(w, c.Body, maxJSONBody), v)
}

// checkJSON refuses a body that does not call itself JSON: a browser can be tricked into sending forms to a loopback
// port, but not into this content type.
func (c *call) checkJSON() error {
	ct := c.Header.Get("Content-Type")
	if ct == "" && (c.Body == nil || c.Body == http.NoBody || c.ContentLength == 0) {
		return nil
	}
	kind, _, err := mime.ParseMediaType(ct)
	if err != nil {
		return invalid("malformed Content-Type header (%s): %v", shown(ct), err)
	}
	if kind != "application/json" {
		return invalid("unsupported Content-Type header (%s): must be 'application/json'", shown(ct))
	}
	return nil
}

// decodeJSON reads exactly one JSON document. Unknown fields are ignored: clients are often newer than we are.
func decodeJSON(r io.Reader, v any) error {
	var raw bytes.Buffer
	dec := json.NewDecoder(io.TeeReader(r, &raw))
	if err := dec.Decode(v); err != nil {
		return badJSON(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return badJSON(err)
		}
		return invalid("unexpected content after JSON")
	}
	return refuseNUL(raw.Bytes())
}

// refuseNUL looks for the one character that neither names, paths, arguments nor environments can hold. Behind this point
// the kernel would refuse it half way through the work.
func refuseNUL(doc []byte) error {
	var v any
	if !bytes.Contains(doc, []byte(`\u0000`)) || json.Unmarshal(doc, &v) != nil || !holdsNUL(v) {
		return nil
	}
	return invalid("invalid JSON: a string in it holds a NUL character")
}

// holdsNUL walks a decoded document, its keys included.
func holdsNUL(v any) bool {
	switch v := v.(type) {
	case string:
		return strings.Contains(v, "\x00")
	case []any:
		return slices.ContainsFunc(v, holdsNUL)
	case map[string]any:
		for key, value := range v {
			if strings.Contains(key, "\x00") || holdsNUL(value) {
				return true
			}
		}
	}
	return false
}

// badJSON words a decoder's error as docker does. Text of the client's may be in it, so it is cut.
func badJSON(err error) error {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return fmt.Errorf("invalid JSON: more than %d bytes: %w", tooLarge.Limit, err)
	case errors.Is(err, io.EOF):
		return invalid("invalid JSON: got EOF while reading request body")
	default:
		return invalid("invalid JSON: %s", clip(err.Error()))
	}
}

// shown quotes a client's text for an error, cut so that a megabyte is not sent back.
func shown(s string) string { return strconv.Quote(clip(s)) }

// clip cuts a client's text at 128 bytes.
func clip(s string) string {
	const limit = 128
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}
