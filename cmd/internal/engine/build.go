package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/moby/moby/api/types/events"

	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/runtime/image"
	"github.com/minictl/minictl/runtime/room"
)

// ImageBuild has an image built. The context is taken whole before the first line of progress goes out: many clients
// read nothing until they have sent all.
func (e *Engine) ImageBuild(ctx context.Context, o image.Build, tar io.Reader, p api.Progress) (string, error) {
	spool, err := os.CreateTemp(e.cfg.Root, "build-*")
	if err != nil {
		return "", fmt.Errorf("build: keep the context: %w", err)
	}
	defer spool.Close()
	// Nothing is left of it, whatever happens to this process.
	if err := os.Remove(spool.Name()); err != nil {
		return "", fmt.Errorf("build: keep the context: %w", err)
	}
	n, err := room.Copy(ctx, room.At(e.cfg.Root), spool, tar)
	if err != nil {
		return "", fmt.Errorf("build: take the context: %w", err)
	}
	if n == 0 && o.Remote == "" {
		return "", invalid("build: no context was sent, and no remote named")
	}
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return "", fmt.Errorf("build: %w", err)
	}
	id, err := e.cfg.Builder.Build(ctx, o, spool, p)
	if err != nil {
		return "", err
	}
	if id == "" {
		return "", errors.New("build: the builder did not say what it made")
	}
	for _, t := range o.Tags {
		e.imageEventOf(ctx, id, image.Familiar(t), events.ActionTag)
	}
	return id, nil
}
