// Package feed hands what happens, docker's events, to whoever listens, and keeps the last of it.
package feed

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"

	"github.com/minictl/minictl/cmd/internal/filters"
)

const (
	// kept is how many past events `events --since` can show: docker's number.
	kept = 256
	// patience is how many events a listener may leave unread.
	patience = 1024
)

// Feed hands events on in their order.
type Feed struct {
	mu        sync.Mutex
	past      []events.Message
	listeners map[chan events.Message]struct{}
}

// New makes a feed in which nothing has happened.
func New() *Feed { return &Feed{listeners: map[chan events.Message]struct{}{}} }

// Publish says that something has happened now. It waits for nobody.
func (f *Feed) Publish(m events.Message) {
	now := time.Now()
	m.Time, m.TimeNano = now.Unix(), now.UnixNano()
	if m.Scope == "" {
		m.Scope = "local"
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.past) == kept {
		f.past = f.past[1:]
	}
	f.past = append(f.past, m)
	for l := range f.listeners {
		select {
		case l <- m:
		default: // a listener that sleeps through a thousand events is cut off rather than waited for
			delete(f.listeners, l)
			close(l)
		}
	}
}

// subscribe gives the kept events from since to until, and a channel of those to come. Zero times are no bounds; without
// either there is no question about the past.
func (f *Feed) subscribe(since, until time.Time) ([]events.Message, chan events.Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var past []events.Message
	for _, m := range f.past {
		at := time.Unix(0, m.TimeNano)
		if (!since.IsZero() || !until.IsZero()) && !at.Before(since) && (until.IsZero() || !at.After(until)) {
			past = append(past, m)
		}
	}
	l := make(chan events.Message, patience)
	f.listeners[l] = struct{}{}
	return past, l
}

func (f *Feed) unsubscribe(l chan events.Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.listeners, l)
}

// Listen gives a function that hands on past events since a time, then live ones, until its ctx ends or the until time has
// come. Nothing that happens between the two calls is missed; the function must be called, once.
func (f *Feed) Listen(since, until string, want filters.Set) (send func(ctx context.Context, out chan<- events.Message), err error) {
	from, to, err := times(since, until)
	if err != nil {
		return nil, err
	}
	if err := known(want); err != nil {
		return nil, err
	}
	past, live := f.subscribe(from, wholeSecond(to))
	return func(ctx context.Context, out chan<- events.Message) {
		defer f.unsubscribe(live)
		for _, m := range past {
			if !hand(ctx, out, want, m) {
				return
			}
		}
		var end <-chan time.Time
		if !to.IsZero() {
			end = time.After(time.Until(to))
		}
		for {
			select {
			case m, ok := <-live:
				if !ok || !hand(ctx, out, want, m) {
					return
				}
			case <-end:
				return
			case <-ctx.Done():
				return
			}
		}
	}, nil
}

// hand gives false when ctx has ended.
func hand(ctx context.Context, out chan<- events.Message, want filters.Set, m events.Message) bool {
	if !match(want, m) {
		return true
	}
	select {
	case out <- m:
		return true
	case <-ctx.Done():
		return false
	}
}

// times reads since and until. Since 0 is the epoch: all that is kept.
func times(since, until string) (from, to time.Time, err error) {
	if from, err = filters.Time(since); err != nil {
		return from, to, err
	}
	if since == "0" {
		from = time.Unix(0, 0)
	}
	if to, err = filters.Time(until); err != nil {
		return from, to, err
	}
	if !to.IsZero() && to.Before(from) {
		return from, to, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("`since` time (%s) cannot be after `until` time (%s)", since, until))
	}
	return from, to, nil
}

// wholeSecond takes a time without a fraction for its whole second: the client that turns "until now" into one must not
// miss what happened last.
func wholeSecond(t time.Time) time.Time {
	if t.IsZero() || t.Nanosecond() != 0 {
		return t
	}
	return t.Add(time.Second - 1)
}
