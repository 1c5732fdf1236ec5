package lab

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
)

// Program is the TB of a program that is no test. Its main calls [Reexec] first and does its work in Run. The zero value
// is ready; its methods are for any number of goroutines, but Fatalf, as in tests, only for the one that Run calls.
type Program struct {
	// Log gets what a test would log, the dump of a failed lab included; nil drops it.
	Log func(text string)

	mu       sync.Mutex
	cleanups []func()
	failure  error
}

// Run calls fn, then what was registered with Cleanup, last first. The error is fn's and everything that Errorf and Fatalf
// were told.
func (p *Program) Run(fn func() error) error {
	p.await(func() {
		if err := fn(); err != nil {
			p.fail(err)
		}
	})
	for {
		p.mu.Lock()
		rest := p.cleanups
		p.cleanups = nil
		p.mu.Unlock()
		if len(rest) == 0 {
			break
		}
		for _, c := range slices.Backward(rest) {
			p.await(c)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failure
}

// await gives fn a goroutine of its own, because that is what Fatalf ends.
func (p *Program) await(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	<-done
}

func (p *Program) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failure = errors.Join(p.failure, err)
}

// Helper is for tests.
func (p *Program) Helper() {}

// Logf hands a message to Log.
func (p *Program) Logf(format string, a ...any) {
	if p.Log != nil {
		p.Log(fmt.Sprintf(format, a...))
	}
}

// Errorf remembers what went wrong.
func (p *Program) Errorf(format string, a ...any) { p.fail(fmt.Errorf(format, a...)) }

// Fatalf remembers what went wrong and ends what Run called.
func (p *Program) Fatalf(format string, a ...any) {
	p.fail(fmt.Errorf(format, a...))
	runtime.Goexit()
}

// Failed tells whether something went wrong.
func (p *Program) Failed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failure != nil
}

// Cleanup registers what Run calls at its end.
func (p *Program) Cleanup(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cleanups = append(p.cleanups, fn)
}
