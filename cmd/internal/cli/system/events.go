package system

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
	"github.com/minictl/minictl/cmd/internal/cli/inspect"
)

// stamp is RFC 3339 with all nine digits, so that columns line up.
const stamp = "2006-01-02T15:04:05.000000000Z07:00"

func newEventsCommand(c *console.Console) *cobra.Command {
	var (
		o      client.EventsListOptions
		format string
		filter = opts.NewFilterOpt()
	)
	cmd := &cobra.Command{
		Use:                   "events [OPTIONS]",
		Short:                 "Get real time events from the server",
		Example:               "  minictl events --filter type=network\n  minictl events --since 10m --until 0s",
		Args:                  console.NoArgs,
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, _ []string) error {
			o.Filters = filter.Value()
			return runEvents(ctx, cl, c.Out, o, format)
		}),
	}
	fs := cmd.Flags()
	fs.StringVar(&o.Since, "since", "", "Show all events created since timestamp")
	fs.StringVar(&o.Until, "until", "", "Stream events until this timestamp")
	fs.VarP(&filter, "filter", "f", "Filter output based on conditions provided")
	fs.StringVar(&format, "format", "", inspect.FormatHelp("{{.Type}} {{.Action}}"))
	return cmd
}

// eventsClient is what events needs of the daemon.
type eventsClient interface {
	Events(ctx context.Context, o client.EventsListOptions) client.EventsResult
}

// runEvents ends without an error when the daemon ends the stream, which is what --until asks for.
func runEvents(ctx context.Context, cl eventsClient, out io.Writer, o client.EventsListOptions, format string) error {
	write, err := eventWriter(format)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := cl.Events(ctx, o)
	for {
		select {
		case m := <-stream.Messages:
			if err := write(out, m); err != nil {
				return err
			}
		case err := <-stream.Err:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

func eventWriter(format string) (func(io.Writer, events.Message) error, error) {
	if format == "" {
		return writeEvent, nil
	}
	// A wrong field name shows now and not at the first event.
	if err := inspect.Print(io.Discard, &events.Message{}, format); err != nil {
		return nil, err
	}
	return func(out io.Writer, m events.Message) error { return inspect.Print(out, m, format) }, nil
}

func writeEvent(out io.Writer, m events.Message) error {
	var b strings.Builder
	switch {
	case m.TimeNano != 0:
		b.WriteString(time.Unix(0, m.TimeNano).Format(stamp) + " ")
	case m.Time != 0:
		b.WriteString(time.Unix(m.Time, 0).Format(stamp) + " ")
	}
	fmt.Fprintf(&b, "%s %s %s", m.Type, m.Action, m.Actor.ID)
	var attrs []string
	for _, k := range slices.Sorted(maps.Keys(m.Actor.Attributes)) {
		attrs = append(attrs, k+"="+m.Actor.Attributes[k])
	}
	if len(attrs) > 0 {
		b.WriteString(" (" + strings.Join(attrs, ", ") + ")")
	}
	_, err := fmt.Fprintln(out, b.String())
	return err
}
