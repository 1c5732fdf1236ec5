package engine

import "testing"

// typedAt is a stream that notes what reaches it.
type typedAt struct {
	emptyStream
	got    string
	closed bool
}

func (s *typedAt) Write(p []byte) (int, error) { s.got += string(p); return len(p), nil }
func (s *typedAt) Close() error                { s.closed = true; return nil }

// TestEscape: the keys leave once, also when they come apart, and go nowhere themselves.
func TestEscape(t *testing.T) {
	to, left := &typedAt{}, 0
	keys, err := escapeKeys("ctrl-a,d")
	if err != nil {
		t.Fatal(err)
	}
	s := escapable(to, true, keys, func() { left++ })
	for _, typed := range []string{"ls\x01", "x\x01", "d", "\x01d"} {
		if _, err := s.Write([]byte(typed)); err != nil {
			t.Fatal(err)
		}
	}
	if to.got != "ls\x01x" || !to.closed || left != 1 {
		t.Errorf("typed %q, closed %v, left %d times", to.got, to.closed, left)
	}
	if _, err := escapeKeys("ctrl-nope"); err == nil {
		t.Error("keys that are none")
	}
	if s := escapable(to, false, keys, func() {}); s != to {
		t.Errorf("without a terminal: %v", s)
	}
}
