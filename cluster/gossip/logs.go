package gossip

import (
	"bytes"
	"context"
	"log"
	"log/slog"
)

// newLogger turns memberlist's lines ("[WARN] memberlist: text") into records of to.
func newLogger(to *slog.Logger) *log.Logger { return log.New(lineWriter{to}, "", 0) }

type lineWriter struct{ log *slog.Logger }

// Write takes one line, as log.Logger calls it.
func (w lineWriter) Write(p []byte) (int, error) {
	level, text := splitLine(p)
	w.log.Log(context.Background(), level, text)
	return len(p), nil
}

// splitLine finds level and text of one line. memberlist calls everything an error that a dead host causes, and the
// dead host is reported by those who use this package: so its errors are warnings here, its warnings and reports are
// for debugging.
func splitLine(p []byte) (slog.Level, string) {
	p = bytes.TrimSpace(p)
	level := slog.LevelDebug
	if rest, ok := bytes.CutPrefix(p, []byte("[")); ok {
		if name, text, ok := bytes.Cut(rest, []byte("] ")); ok {
			p = text
			if string(name) == "ERR" || string(name) == "ERROR" {
				level = slog.LevelWarn
			}
		}
	} else if bytes.HasPrefix(p, []byte("Err: ")) {
		level, p = slog.LevelWarn, p[len("Err: "):]
	}
	return level, string(bytes.TrimPrefix(p, []byte("memberlist: ")))
}
