package container

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
)

// statsPace is how often the table is drawn anew, and the list of containers asked for.
const statsPace = 500 * time.Millisecond

type statsOptions struct {
	all, once, noTrunc bool
	format             string
}

func newStatsCommand(c *console.Console) *cobra.Command {
	var o statsOptions
	cmd := &cobra.Command{
		Use:               "stats [OPTIONS] [CONTAINER...]",
		Short:             "Display a live stream of container(s) resource usage statistics",
		Example:           "  minictl stats\n  minictl stats --no-stream web1",
		ValidArgsFunction: complete.Containers(c, false), DisableFlagsInUseLine: true,
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.all, "all", "a", false, "Show all containers (default shows just running)")
	fs.BoolVar(&o.once, "no-stream", false, "Disable streaming stats and only pull the first result")
	fs.BoolVar(&o.noTrunc, "no-trunc", false, "Do not truncate output")
	fs.StringVar(&o.format, "format", "", console.FormatHelp)
	cmd.RunE = c.WithClient(func(ctx context.Context, cl *client.Client, refs []string) error {
		if o.format == "" {
			o.format = c.Config().StatsFormat
		}
		if o.format == "" {
			o.format = formatter.TableFormatKey
		}
		return runStats(ctx, cl, c.Out, refs, o)
	})
	return cmd
}

// statsClient is what stats needs of the daemon.
type statsClient interface {
	listClient
	inspectClient
	ContainerStats(ctx context.Context, id string, o client.ContainerStatsOptions) (client.ContainerStatsResult, error)
}

func runStats(ctx context.Context, cl statsClient, out io.Writer, refs []string, o statsOptions) error {
	b := &board{cl: cl, stream: !o.once, rows: map[string]container.StatsResponse{}}
	for _, ref := range refs { // a wrong name is said before anything is drawn
		if _, err := cl.ContainerInspect(ctx, ref, client.ContainerInspectOptions{}); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer b.followers.Wait()
	defer cancel()
	if err := b.follow(ctx, refs, o.all); err != nil {
		return err
	}
	if o.once {
		b.followers.Wait()
		return b.draw(out, o)
	}
	tick := time.NewTicker(statsPace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		var frame bytes.Buffer
		if err := b.draw(&frame, o); err != nil {
			return err
		}
		// Home, the frame with each line's rest cleared, then everything below it: no flicker.
		if _, err := fmt.Fprintf(out, "\x1b[H%s\x1b[J", bytes.ReplaceAll(frame.Bytes(), []byte("\n"), []byte("\x1b[K\n"))); err != nil {
			return err
		}
		if err := b.follow(ctx, refs, o.all); err != nil {
			return err
		}
	}
}

// board is what is known of the containers on show.
type board struct {
	cl        statsClient
	stream    bool
	followers sync.WaitGroup

	mu    sync.Mutex
	order []string // names or IDs, as they are asked for
	rows  map[string]container.StatsResponse
}

// follow begins to read the statistics of what is new and forgets what is gone. Names that were given stay.
func (b *board) follow(ctx context.Context, refs []string, all bool) error {
	want := refs
	if len(refs) == 0 {
		res, err := b.cl.ContainerList(ctx, client.ContainerListOptions{All: all})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		for _, i := range res.Items {
			want = append(want, i.ID)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ref := range want {
		if !slices.Contains(b.order, ref) {
			b.followers.Go(func() { b.read(ctx, ref) })
		}
	}
	for _, ref := range b.order {
		if !slices.Contains(want, ref) {
			delete(b.rows, ref)
		}
	}
	b.order = slices.Clone(want)
	return nil
}

// read takes samples until the daemon or ctx ends them.
func (b *board) read(ctx context.Context, ref string) {
	res, err := b.cl.ContainerStats(ctx, ref, client.ContainerStatsOptions{Stream: b.stream, IncludePreviousSample: !b.stream})
	if err != nil {
		return // removed meanwhile: its row stays empty until the list leaves it out
	}
	defer res.Body.Close()
	dec := json.NewDecoder(res.Body)
	for {
		var s container.StatsResponse
		if dec.Decode(&s) != nil {
			return
		}
		b.mu.Lock()
		b.rows[ref] = s
		b.mu.Unlock()
	}
}

func (b *board) draw(out io.Writer, o statsOptions) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	format := formatter.Format(o.format)
	if o.format == formatter.TableFormatKey {
		format = statsTable
	}
	ctx := formatter.Context{Output: out, Format: format, Trunc: !o.noTrunc}
	return ctx.Write(statsHeader(), func(write func(formatter.SubContext) error) error {
		for _, ref := range b.order {
			if err := write(&statsRow{ref: ref, s: b.rows[ref], trunc: !o.noTrunc}); err != nil {
				return err
			}
		}
		return nil
	})
}
