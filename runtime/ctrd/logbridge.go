package ctrd

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"

	"github.com/containerd/log"
	"github.com/sirupsen/logrus"
)

// bridgeLogs sends containerd's messages to l: warnings and errors always, the
// rest when l itself is at debug. containerd's "info" is a line per plugin and
// per task, so it counts as debug here.
func bridgeLogs(ctx context.Context, l *slog.Logger) (context.Context, *slogHook) {
	hook := &slogHook{log: l.With("component", "containerd"), levels: logrus.AllLevels[:logrus.WarnLevel+1]}
	level := logrus.WarnLevel
	if l.Enabled(ctx, slog.LevelDebug) {
		hook.levels, level = logrus.AllLevels[:logrus.DebugLevel+1], logrus.DebugLevel
	}
	// Parts of containerd log without a context, through the package's global
	// entry, so that one has to be set as well.
	lr := log.L.Logger
	lr.SetOutput(io.Discard)
	lr.SetLevel(level)
	lr.ReplaceHooks(logrus.LevelHooks{})
	lr.AddHook(hook)
	return log.WithLogger(ctx, log.L), hook
}

// slogHook hands a logrus entry to a slog logger.
type slogHook struct {
	log    *slog.Logger
	levels []logrus.Level
	closed atomic.Bool // parts of the server notice its end as an error
}

// Levels implements logrus.Hook.
func (h *slogHook) Levels() []logrus.Level { return h.levels }

// Fire implements logrus.Hook.
func (h *slogHook) Fire(e *logrus.Entry) error {
	if h.closed.Load() {
		return nil
	}
	level := slog.LevelDebug
	switch {
	case harmless(e.Message):
	case e.Level <= logrus.ErrorLevel:
		level = slog.LevelError
	case e.Level == logrus.WarnLevel:
		level = slog.LevelWarn
	}
	attrs := make([]slog.Attr, 0, len(e.Data))
	for k, v := range e.Data {
		if k == logrus.ErrorKey {
			k = "err"
		}
		attrs = append(attrs, slog.Any(k, v))
	}
	h.log.LogAttrs(context.Background(), level, e.Message, attrs...)
	return nil
}

// harmless says that containerd gives a message a higher level than it has here.
func harmless(msg string) bool {
	switch msg {
	case "copy shim log", // the end of every shim's log
		"failed check for fsverity support", // file systems differ
		// A failed create or delete is our caller's error already; containerd adds
		// these for the same event.
		"failed to delete task", "warnings while cleaning up dead shim":
		return true
	}
	return false
}
