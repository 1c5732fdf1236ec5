package engine

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cmd/internal/api"
)

// known refuses a filter that nobody would answer, with docker's words.
func known(f api.Filters, keys ...string) error {
	for k := range f {
		if !slices.Contains(keys, k) {
			return fmt.Errorf("invalid filter '%s': %w", k, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// matchLabels wants every asked label: "key" present, or "key=value" equal.
func matchLabels(want map[string]bool, have map[string]string) bool {
	for l := range want {
		k, v, pair := strings.Cut(l, "=")
		got, ok := have[k]
		if !ok || (pair && got != v) {
			return false
		}
	}
	return true
}

// matchAny tells whether one of the asked values fits; no value asked for fits all.
func matchAny(want map[string]bool, fits func(v string) bool) bool {
	if len(want) == 0 {
		return true
	}
	for v := range want {
		if fits(v) {
			return true
		}
	}
	return false
}

// matchName takes a part of a name or an ID, or a regular expression, as docker does.
func matchName(want, name string) bool {
	if strings.Contains(name, want) {
		return true
	}
	re, err := regexp.Compile(want)
	return err == nil && re.MatchString(name)
}

// truth reads a filter that is true or false; otherwise is what it is without.
func truth(f api.Filters, key string, otherwise bool) (bool, error) {
	v, err := boolFilter(f, key)
	if v == nil {
		return otherwise, err
	}
	return *v, err
}

// boolFilter reads a filter that is true or false; nil if it was not asked for.
func boolFilter(f api.Filters, key string) (*bool, error) {
	var out *bool
	for s := range f[key] {
		v := s == "1" || s == "true"
		if !v && s != "0" && s != "false" || out != nil && *out != v {
			return nil, invalid("invalid filter '%s=%s'", key, s)
		}
		out = &v
	}
	return out, nil
}

// parseUntil reads a filter's until: a time, or a duration that is counted back from now.
func parseUntil(s string) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return time.Now().Add(-d), nil
	}
	return parseTime(s)
}

// parseTime reads the API's times: Unix seconds with optional nanoseconds, RFC 3339 and what docker lets be left out of it
// (the zone is then this host's), or empty for none.
func parseTime(s string) (time.Time, error) {
	if s == "" || s == "0" {
		return time.Time{}, nil
	}
	for _, layout := range []string{
		time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15Z07:00", "2006-01-02Z07:00",
		"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02T15", time.DateOnly,
	} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	sec, frac, _ := strings.Cut(s, ".")
	n, err := strconv.ParseInt(sec, 10, 64)
	if err != nil || n > math.MaxInt32*1000 || n < -math.MaxInt32*1000 {
		return time.Time{}, fmt.Errorf("invalid time %q: want Unix seconds or RFC 3339: %w", s, errdefs.ErrInvalidArgument)
	}
	var nano int64
	if frac != "" {
		if nano, err = strconv.ParseInt((frac + "000000000")[:9], 10, 64); err != nil || nano < 0 {
			return time.Time{}, fmt.Errorf("invalid time %q: want Unix seconds or RFC 3339: %w", s, errdefs.ErrInvalidArgument)
		}
	}
	return time.Unix(n, nano), nil
}
