package raft

import (
	"context"
	"io"
	"log/slog"

	hclog "github.com/hashicorp/go-hclog"
)

// newLogger passes hashicorp's messages on to log.
func newLogger(log *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Off, Output: io.Discard})
	l.RegisterSink(slogSink{log})
	return l
}

type slogSink struct{ log *slog.Logger }

// Accept implements hclog.SinkAdapter. Raft's own steps are debugging
// material, warnings and errors included: it repeats for every message to an
// absent host what gossip has told the operator once. What an operator would
// act on (a new leader, no leader, a broken replica) the backend says itself.
func (s slogSink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	if level < hclog.Debug || !s.log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	s.log.Debug(msg, append([]any{"raft", level.String()}, args...)...)
}
