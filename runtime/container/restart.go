package container

import (
	"time"

	"github.com/moby/moby/api/types/container"
)

// Docker's back-off between automatic starts: it doubles from the first to the last, and begins anew once a container has
// run long enough to count as working.
const (
	firstDelay = 100 * time.Millisecond
	lastDelay  = time.Minute
	worksAfter = 10 * time.Second
)

// NextDelay is how long to wait before the next automatic start: before is the previous wait, 0 for none, and ran is how
// long the container lasted.
func NextDelay(before, ran time.Duration) time.Duration {
	if before == 0 || ran >= worksAfter {
		return firstDelay
	}
	return min(2*before, lastDelay)
}

// StartsAgain tells whether a container that has just ended starts again by itself. A user's stop is always respected.
func StartsAgain(p container.RestartPolicy, s *Status) bool {
	return !s.ManuallyStopped && wants(p, s)
}

// StartsAtBoot tells whether a container that does not run starts when the daemon does. A policy of always is stronger
// than a stop of before: that is what tells it from unless-stopped. One that was never started is left alone.
func StartsAtBoot(p container.RestartPolicy, s *Status) bool {
	if s.StartedAt.IsZero() || s.ManuallyStopped && !p.IsAlways() {
		return false
	}
	return wants(p, s)
}

func wants(p container.RestartPolicy, s *Status) bool {
	switch {
	case p.IsAlways(), p.IsUnlessStopped():
		return true
	case p.IsOnFailure():
		return s.ExitCode != 0 && (p.MaximumRetryCount == 0 || s.RestartCount < p.MaximumRetryCount)
	}
	return false
}
