package api

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/term"
)

// containerWait sends its header as soon as the wait is registered: docker run sends wait before start, and goes on
// only when it has read the header.
func (s *server) containerWait(w http.ResponseWriter, c *call) error {
	condition := container.WaitConditionNotRunning
	if text := c.text("condition"); text != "" {
		condition = container.WaitCondition(text)
	}
	switch condition {
	case container.WaitConditionNotRunning, container.WaitConditionNextExit, container.WaitConditionRemoved:
	default:
		return invalid("invalid condition: %s", shown(string(condition)))
	}
	answers, err := s.Container.ContainerWait(c.Context(), c.name, condition)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	if c.since(30) { // older clients take the header for the exit
		w.WriteHeader(http.StatusOK)
		flush(w)
	}
	select {
	case answer, ok := <-answers:
		if !ok {
			return io.ErrUnexpectedEOF // a back end that breaks its word; the client must not read "exit code 0"
		}
		_ = json.NewEncoder(w).Encode(answer)
	case <-c.Context().Done():
	}
	return nil
}

// containerAttach answers 101 only when the stream is registered, so that a start after it loses no output.
func (s *server) containerAttach(w http.ResponseWriter, c *call) error {
	keys := c.text("detachKeys")
	if keys != "" {
		if _, err := term.ToBytes(keys); err != nil {
			return invalid("Invalid detach keys (%s) provided", clip(keys))
		}
	}
	ctx, cancel := c.streaming()
	defer cancel()
	tty, err := s.Container.ContainerTTY(ctx, c.name)
	if err != nil {
		return err
	}
	opts := AttachOptions{
		Stream: c.flag("stream"), Logs: c.flag("logs"), DetachKeys: keys,
		Stdin: c.flag("stdin"), Stdout: c.flag("stdout"), Stderr: c.flag("stderr"),
	}
	stream, err := s.Container.ContainerAttach(ctx, c.name, opts)
	if err != nil {
		return err
	}
	conn, err := hijack(w, c, c.streamType(tty))
	if err != nil {
		_ = stream.Close()
		return err
	}
	conn.pump(ctx, stream, opts.Stdin)
	return nil
}

// streamType is the content type that tells a client whether to take frames apart. Before API 1.42 there was one word.
func (c *call) streamType(tty bool) string {
	if tty || !c.since(42) {
		return types.MediaTypeRawStream
	}
	return types.MediaTypeMultiplexedStream
}

// containerLogs checks all that can be checked before the first byte: after it there is no status to say no with.
func (s *server) containerLogs(w http.ResponseWriter, c *call) error {
	opts := LogsOptions{
		Stdout: c.flag("stdout"), Stderr: c.flag("stderr"), Follow: c.flag("follow"),
		Timestamps: c.flag("timestamps"), Details: c.flag("details"),
		Since: c.text("since"), Until: c.text("until"), Tail: c.text("tail"),
	}
	if !opts.Stdout && !opts.Stderr {
		return invalid("Bad parameters: you must choose at least one stream")
	}
	for key, text := range map[string]string{"since": opts.Since, "until": opts.Until} {
		if err := checkTime(key, text); err != nil {
			return err
		}
	}
	if _, err := strconv.Atoi(opts.Tail); err != nil {
		opts.Tail = "all" // docker too takes whatever is not a number for all
	}
	tty, err := s.Container.ContainerTTY(c.Context(), c.name)
	if err != nil {
		return err
	}
	out := &flushWriter{w: w}
	w.Header().Set("Content-Type", c.streamType(tty))
	if opts.Follow {
		out.begin() // a follower of a silent container must know that it is connected
	}
	err = s.Container.ContainerLogs(c.Context(), c.name, opts, out)
	if err == nil || c.Context().Err() != nil {
		out.begin()
		return nil
	}
	if !out.begun {
		return err
	}
	// The status is out; as docker does, the stream itself carries the reason.
	_, _ = out.Write(frame(tty, stderrFrame, "Error grabbing logs: "+message(err)+"\n"))
	return nil
}

// checkTime refuses what is neither Unix seconds, with or without a fraction, nor RFC 3339.
func checkTime(key, text string) error {
	if text == "" {
		return nil
	}
	if _, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return nil
	}
	secs, frac, _ := strings.Cut(text, ".")
	if _, err := strconv.ParseInt(secs, 10, 64); err == nil {
		if _, err := strconv.ParseUint("0"+frac, 10, 64); err == nil {
			return nil
		}
	}
	return invalid("invalid value %s for %q: must be Unix seconds or RFC 3339", shown(text), key)
}
