package filters

import (
	"testing"
	"time"
)

func TestTime(t *testing.T) {
	for s, want := range map[string]time.Time{
		"": {}, "0": {}, "1700000000": time.Unix(1700000000, 0), "1700000000.5": time.Unix(1700000000, 5e8),
		"1700000000.000000001": time.Unix(1700000000, 1), "2026-01-02T03:04:05Z": time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		"2026-01-02": time.Date(2026, 1, 2, 0, 0, 0, 0, time.Local), "2026-01-02T03:04": time.Date(2026, 1, 2, 3, 4, 0, 0, time.Local),
		"2026-01-02Z": time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC), "2026-01-02T03+01:00": time.Date(2026, 1, 2, 2, 0, 0, 0, time.UTC),
	} {
		if got, err := Time(s); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"x", "1.x", "99999999999999999999", "1700000000.-1"} {
		if got, err := Time(s); err == nil {
			t.Errorf("%s: %v", s, got)
		}
	}
}

func FuzzTime(f *testing.F) {
	f.Add("1700000000.000000001")
	f.Fuzz(func(t *testing.T, s string) { _, _ = Time(s) })
}
