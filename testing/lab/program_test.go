package lab

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestProgramStopsAtAFaultAndCleansUp(t *testing.T) {
	var said, done []string
	p := &Program{Log: func(text string) { said = append(said, text) }}
	err := p.Run(func() error {
		p.Cleanup(func() { done = append(done, "first") })
		p.Cleanup(func() {
			if !p.Failed() {
				t.Error("a clean-up does not see the failure")
			}
			done = append(done, "second")
			p.Cleanup(func() { done = append(done, "late") })
			p.Fatalf("clean-up %d", 2)
		})
		p.Logf("at %d", 1)
		p.Errorf("goes %s", "on")
		p.Fatalf("stops here")
		t.Error("Fatalf returned")
		return nil
	})
	for _, want := range []string{"goes on", "stops here", "clean-up 2"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in: %v", want, err)
		}
	}
	if want := []string{"second", "first", "late"}; !slices.Equal(done, want) {
		t.Errorf("clean-ups: %q, want %q", done, want)
	}
	if want := []string{"at 1"}; !slices.Equal(said, want) {
		t.Errorf("logged: %q, want %q", said, want)
	}
}

func TestProgramGivesItsError(t *testing.T) {
	cause := errors.New("cause")
	if err := new(Program).Run(func() error { return cause }); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
	if err := new(Program).Run(func() error { return nil }); err != nil {
		t.Errorf("got %v", err)
	}
}
