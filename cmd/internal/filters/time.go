package filters

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// Until reads a prune's bound: a time, or a duration that is counted back from now.
func Until(s string) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return time.Now().Add(-d), nil
	}
	return Time(s)
}

// Time reads the API's times: Unix seconds with optional nanoseconds, RFC 3339 and what docker lets be left out of it
// (the zone is then this host's), or empty for none.
func Time(s string) (time.Time, error) {
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
