package logs

import (
	"context"
	"time"

	"github.com/fsnotify/fsnotify"
)

// pollInterval is used where a directory cannot be watched: it does not exist
// yet, or the user's inotify instances (128 by default) are used up.
const pollInterval = 100 * time.Millisecond

// waker tells a follower when to look again.
type waker struct {
	watch *fsnotify.Watcher
	poll  *time.Ticker
	end   *time.Timer // Until has passed
	ended bool
}

func newWaker(dir string, until time.Time) *waker {
	w := &waker{}
	if watch, err := fsnotify.NewWatcher(); err == nil {
		if watch.Add(dir) == nil {
			w.watch = watch
		} else {
			watch.Close()
		}
	}
	if w.watch == nil {
		w.poll = time.NewTicker(pollInterval)
	}
	if !until.IsZero() {
		w.end = time.NewTimer(time.Until(until))
	}
	return w
}

// over says that this is the last look.
func (w *waker) over(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return w.ended
	}
}

// wait returns when there may be more to read, or when the end has come; false
// when the context ended.
func (w *waker) wait(ctx context.Context, done <-chan struct{}) bool {
	var (
		events <-chan fsnotify.Event
		errs   <-chan error // overflow: look, too
		tick   <-chan time.Time
		end    <-chan time.Time
	)
	if w.watch != nil {
		events, errs = w.watch.Events, w.watch.Errors
	} else {
		tick = w.poll.C
	}
	if w.end != nil {
		end = w.end.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-end:
		w.ended = true
	case <-done:
	case <-events:
	case <-errs:
	case <-tick:
	}
	return true
}

func (w *waker) close() {
	if w.watch != nil {
		w.watch.Close()
	}
	if w.poll != nil {
		w.poll.Stop()
	}
	if w.end != nil {
		w.end.Stop()
	}
}
