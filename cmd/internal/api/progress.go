package api

import (
	"encoding/json"
	"net/http"
	"sync"

	"github.com/moby/moby/api/types/jsonstream"
)

// progressLine is one line of a long operation. Error is the old form of errorDetail; docker-py still reads it.
type progressLine struct {
	Stream   string               `json:"stream,omitempty"`
	Status   string               `json:"status,omitempty"`
	Progress *jsonstream.Progress `json:"progressDetail,omitempty"`
	ID       string               `json:"id,omitempty"`
	Detail   *jsonstream.Error    `json:"errorDetail,omitempty"`
	Error    string               `json:"error,omitempty"`
	Aux      any                  `json:"aux,omitempty"`
}

// progress writes newline-delimited JSON, each line at once. Layers report from several goroutines.
type progress struct {
	message func(error) string

	mu  sync.Mutex
	w   http.ResponseWriter
	out flushWriter
}

// newProgress sends nothing yet: an error before the first line may still have a status of its own.
func newProgress(w http.ResponseWriter, message func(error) string) *progress {
	return &progress{message: message, w: w, out: flushWriter{w: w}}
}

// Status implements Progress.
func (p *progress) Status(status, id string, current, total int64) {
	line := progressLine{Status: status, ID: id}
	if id != "" || current != 0 || total != 0 {
		line.Progress = &jsonstream.Progress{Current: current, Total: total}
	}
	p.write(line)
}

// Stream implements Progress.
func (p *progress) Stream(text string) { p.write(progressLine{Stream: text}) }

// write sends one line.
func (p *progress) write(line progressLine) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.out.begun {
		p.w.Header().Set("Content-Type", "application/json")
	}
	b, err := json.Marshal(line)
	if err != nil {
		return // no field can fail
	}
	_, _ = p.out.Write(append(b, '\n'))
}

// finish ends the stream. An error before the first line still has its status; after it the 200 is out and the line
// itself says so.
func (p *progress) finish(err error) error {
	p.mu.Lock()
	begun := p.out.begun
	p.mu.Unlock()
	switch {
	case err != nil && !begun:
		return err
	case err != nil:
		text := p.message(err)
		p.write(progressLine{Detail: &jsonstream.Error{Code: httpStatus(err), Message: text}, Error: text})
	case !begun:
		p.w.Header().Set("Content-Type", "application/json")
		p.out.begin()
	}
	return nil
}
