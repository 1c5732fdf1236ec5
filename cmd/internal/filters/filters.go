// Package filters reads what docker's lists, prunes and events are filtered by, and tells what fits.
package filters

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// Set is the Engine API's filters parameter: key to the set of its values. All keys must fit; a key without values asks for
// nothing.
type Set map[string]map[string]bool

// Only refuses a key that nobody would answer, with docker's words.
func (f Set) Only(keys ...string) error {
	for k := range f {
		if !slices.Contains(keys, k) {
			return fmt.Errorf("invalid filter '%s': %w", k, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// Any tells whether one of the asked values fits.
func (f Set) Any(key string, fits func(v string) bool) bool {
	if len(f[key]) == 0 {
		return true
	}
	for v := range f[key] {
		if fits(v) {
			return true
		}
	}
	return false
}

// Is tells whether the value is one of those asked for.
func (f Set) Is(key, value string) bool {
	return f.Any(key, func(v string) bool { return v == value })
}

// Begins tells whether one of the asked values is the beginning of one of these.
func (f Set) Begins(key string, of ...string) bool {
	return f.Any(key, func(v string) bool {
		return slices.ContainsFunc(of, func(s string) bool { return strings.HasPrefix(s, v) })
	})
}

// Named tells whether one of the asked values, a part of it or a regular expression, fits one of the names or IDs.
func (f Set) Named(key string, names ...string) bool {
	return f.Any(key, func(v string) bool {
		re, err := regexp.Compile(v)
		return slices.ContainsFunc(names, func(name string) bool {
			return strings.Contains(name, v) || err == nil && re.MatchString(name)
		})
	})
}

// Labels wants every asked label, unlike the others: "key" present, or "key=value" equal.
func (f Set) Labels(key string, have map[string]string) bool {
	for l := range f[key] {
		k, v, pair := strings.Cut(l, "=")
		got, ok := have[k]
		if !ok || (pair && got != v) {
			return false
		}
	}
	return true
}

// Prunes tells whether a prune takes what has these labels: all of those after "label", and not all of those after "label!".
func (f Set) Prunes(labels map[string]string) bool {
	return f.Labels("label", labels) && (len(f["label!"]) == 0 || !f.Labels("label!", labels))
}

// Bool reads a key that is true or false; nil if it was not asked for.
func (f Set) Bool(key string) (*bool, error) {
	var out *bool
	for s := range f[key] {
		v := s == "1" || s == "true"
		if !v && s != "0" && s != "false" || out != nil && *out != v {
			return nil, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("invalid filter '%s=%s'", key, s))
		}
		out = &v
	}
	return out, nil
}

// Truth is Bool with what it is unless asked for.
func (f Set) Truth(key string, otherwise bool) (bool, error) {
	v, err := f.Bool(key)
	if v == nil {
		return otherwise, err
	}
	return *v, err
}
