package api

import (
	"net/http"
	"path"
	"strconv"
	"strings"
)

// DefaultVersion is the API version that we announce, and the newest that we take.
const DefaultVersion = "1.51"

// MinVersion is the oldest API version that we take.
const MinVersion = "1.24"

// handler serves one call. An error becomes a status by httpStatus unless the answer has begun.
type handler func(w http.ResponseWriter, c *call) error

// route is one row of the table. A pattern's {name} is one segment, {name...} one or more, wherever it stands:
// image names hold slashes and are followed by a verb, which http.ServeMux cannot express.
type route struct {
	method  string
	pattern string
	serve   handler
}

// match tells whether the path's segments fit the pattern, and what the wildcard holds.
func match(pattern string, segs []string) (name string, ok bool) {
	want := strings.Split(strings.Trim(pattern, "/"), "/")
	for i, p := range want {
		switch {
		case strings.HasSuffix(p, "...}"):
			tail := len(want) - i - 1
			if len(segs) < i+1+tail {
				return "", false
			}
			end := len(segs) - tail
			name = strings.Join(segs[i:end], "/")
			_, ok = match(strings.Join(want[i+1:], "/"), segs[end:])
			return name, ok || tail == 0
		case i >= len(segs):
			return "", false
		case strings.HasPrefix(p, "{"):
			name = segs[i]
		case p != segs[i]:
			return "", false
		}
	}
	return name, len(want) == len(segs)
}

// find gives the first row that fits.
func find(table []route, method string, segs []string) (*route, string) {
	for i := range table {
		if table[i].method != method && table[i].method != anyMethod {
			continue
		}
		if name, ok := match(table[i].pattern, segs); ok {
			return &table[i], name
		}
	}
	return nil, ""
}

// anyMethod in a route stands for all methods.
const anyMethod = "*"

// splitPath cuts a request's path into its version ("" if none) and its segments. Doubled slashes fall away: clients
// ask for /containers//web/json since a container's own name begins with a slash.
func splitPath(p string) (version string, segs []string) {
	p = strings.Trim(path.Clean("/"+p), "/")
	segs = strings.Split(p, "/")
	if v, ok := strings.CutPrefix(segs[0], "v"); ok && v != "" && strings.Trim(v, "0123456789.") == "" {
		return v, segs[1:]
	}
	return "", segs
}

// apiVersion is a client's version. Versions compare by number: 1.9 is older than 1.24.
type apiVersion struct{ major, minor int }

// parseVersion reads "1.41".
func parseVersion(s string) (apiVersion, error) {
	major, minor, _ := strings.Cut(s, ".")
	a, err := strconv.Atoi(major)
	if err != nil {
		return apiVersion{}, invalid("invalid API version %q: must be formatted <major>.<minor>", s)
	}
	b, err := strconv.Atoi(minor)
	if err != nil {
		return apiVersion{}, invalid("invalid API version %q: must be formatted <major>.<minor>", s)
	}
	return apiVersion{a, b}, nil
}

// less compares by number, not by text.
func (v apiVersion) less(o apiVersion) bool {
	return v.major < o.major || v.major == o.major && v.minor < o.minor
}

// negotiate checks a path's version; a path without one speaks the newest. The texts are docker's.
func negotiate(s string) (apiVersion, error) {
	oldest, newest := apiVersion{1, 24}, apiVersion{1, 51}
	if s == "" {
		return newest, nil
	}
	v, err := parseVersion(s)
	if err != nil {
		return apiVersion{}, err
	}
	if v.less(oldest) {
		return v, invalid("client version %s is too old. Minimum supported API version is %s, "+
			"please upgrade your client to a newer version", s, MinVersion)
	}
	if newest.less(v) {
		return v, invalid("client version %s is too new. Maximum supported API version is %s", s, DefaultVersion)
	}
	return v, nil
}
