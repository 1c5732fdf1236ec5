package image

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/cli/opts"
	"github.com/docker/go-units"
	mobyimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
)

func newSaveCommand(c *console.Console) *cobra.Command {
	var output, platform string
	cmd := &cobra.Command{
		Use:                   "save [OPTIONS] IMAGE [IMAGE...]",
		Short:                 "Save one or more images to a tar archive (streamed to STDOUT by default)",
		Example:               "  minictl save -o site.tar site:1 site:2\n  minictl save site:1 | ssh host2 minictl load",
		Args:                  console.AtLeast(1),
		ValidArgsFunction:     complete.Images(c),
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, refs []string) error {
			var o []client.ImageSaveOption
			switch p, err := variant(platform); {
			case err != nil:
				return err
			case p != nil:
				o = append(o, client.ImageSaveWithPlatforms(*p))
			}
			return c.WriteTo(output, func() (io.ReadCloser, error) { return cl.ImageSave(ctx, refs, o...) })
		}),
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	cmd.Flags().StringVar(&platform, "platform", "", "Save only the given platform variant (os[/arch[/variant]])")
	return cmd
}

// variant reads a --platform flag; nil without one.
func variant(flag string) (*ocispec.Platform, error) {
	if flag == "" {
		return nil, nil
	}
	p, err := platforms.Parse(flag)
	if err != nil {
		return nil, fmt.Errorf("invalid platform: %w", err)
	}
	return &p, nil
}

type historyOptions struct {
	human, quiet, noTrunc bool
	format, platform      string
}

func newHistoryCommand(c *console.Console) *cobra.Command {
	var o historyOptions
	cmd := &cobra.Command{
		Use:                   "history [OPTIONS] IMAGE",
		Short:                 "Show the history of an image",
		Example:               "  minictl history --no-trunc busybox",
		Args:                  console.Exactly(1),
		ValidArgsFunction:     complete.First(1, complete.Images(c)),
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, args []string) error {
			var ho []client.ImageHistoryOption
			switch p, err := variant(o.platform); {
			case err != nil:
				return err
			case p != nil:
				ho = append(ho, client.ImageHistoryWithPlatform(*p))
			}
			res, err := cl.ImageHistory(ctx, args[0], ho...)
			if err != nil {
				return err
			}
			return writeHistory(c.Out, res.Items, o)
		}),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.human, "human", "H", true, "Print sizes and dates in human readable format")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Only show image IDs")
	fs.BoolVar(&o.noTrunc, "no-trunc", false, "Don't truncate output")
	fs.StringVar(&o.format, "format", "", console.FormatHelp)
	fs.StringVar(&o.platform, "platform", "", "Show history for the given platform (os[/arch[/variant]])")
	return cmd
}

// writeHistory has docker's columns; docker's own are not exported.
func writeHistory(out io.Writer, items []mobyimage.HistoryResponseItem, o historyOptions) error {
	format := formatter.Format(o.format)
	switch {
	case o.format != "" && o.format != formatter.TableFormatKey:
	case o.quiet:
		format = formatter.DefaultQuietFormat
	case o.human:
		format = "table {{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
	default:
		format = "table {{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
	}
	head := &step{}
	head.Header = formatter.SubHeaderContext{
		"ID": "IMAGE", "CreatedSince": formatter.CreatedSinceHeader, "CreatedAt": formatter.CreatedAtHeader, "CreatedBy": "CREATED BY",
		"Size": formatter.SizeHeader, "Comment": "COMMENT",
	}
	fc := formatter.Context{Output: out, Format: format, Trunc: !o.noTrunc}
	return fc.Write(head, func(row func(formatter.SubContext) error) error {
		for _, h := range items {
			if err := row(&step{h: h, trunc: !o.noTrunc, human: o.human}); err != nil {
				return err
			}
		}
		return nil
	})
}

// step is one row of an image's history, for templates.
type step struct {
	formatter.HeaderContext
	h            mobyimage.HistoryResponseItem
	trunc, human bool
}

// MarshalJSON gives the columns.
func (s *step) MarshalJSON() ([]byte, error) { return formatter.MarshalJSON(s) }

// ID is the image's for the last step, "<missing>" for those before.
func (s *step) ID() string {
	if s.trunc {
		return formatter.TruncateID(s.h.ID)
	}
	return s.h.ID
}

// CreatedAt is when the step was made.
func (s *step) CreatedAt() string { return time.Unix(s.h.Created, 0).Format(time.RFC3339) }

// CreatedSince is how long ago that was; builds that are to be reproducible say 1970, which means nothing.
func (s *step) CreatedSince() string {
	const year2000 = 946684800
	if !s.human {
		return s.CreatedAt()
	}
	if s.h.Created <= year2000 {
		return "N/A"
	}
	return units.HumanDuration(time.Since(time.Unix(s.h.Created, 0))) + " ago"
}

// CreatedBy is the command.
func (s *step) CreatedBy() string {
	text := strings.ReplaceAll(s.h.CreatedBy, "\t", " ")
	if s.trunc {
		return formatter.Ellipsis(text, 45)
	}
	return text
}

// Size is what the step's layer takes.
func (s *step) Size() string {
	if s.human {
		return units.HumanSizeWithPrecision(float64(s.h.Size), 3)
	}
	return strconv.FormatInt(s.h.Size, 10)
}

// Comment is what whoever made it wrote.
func (s *step) Comment() string { return s.h.Comment }

func newPruneCommand(c *console.Console) *cobra.Command {
	var all, force bool
	filter := opts.NewFilterOpt()
	cmd := &cobra.Command{
		Use:                   "prune [OPTIONS]",
		Short:                 "Remove unused images",
		Example:               "  minictl image prune -a --filter until=240h",
		Args:                  console.NoArgs,
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, _ []string) error {
			warning := "WARNING! This will remove all dangling images."
			if all {
				warning = "WARNING! This will remove all images without at least one container associated to them."
			}
			if ok, err := c.Confirm(ctx, force, warning); !ok {
				return err
			}
			freed, err := Prune(ctx, cl, c.Out, filter.Value(), all)
			if err != nil {
				return err
			}
			fmt.Fprintln(c.Out, "Total reclaimed space:", units.HumanSize(float64(freed)))
			return nil
		}),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&all, "all", "a", false, "Remove all unused images, not just dangling ones")
	fs.BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	fs.Var(&filter, "filter", `Provide filter values (e.g. "until=<timestamp>")`)
	return cmd
}

// pruneClient is what prune needs of the daemon.
type pruneClient interface {
	ImagePrune(ctx context.Context, o client.ImagePruneOptions) (client.ImagePruneResult, error)
}

// Prune removes unused images, those without a name or all, lists them on out and gives the bytes that came free.
func Prune(ctx context.Context, cl pruneClient, out io.Writer, f client.Filters, all bool) (uint64, error) {
	f = f.Clone()
	f.Add("dangling", strconv.FormatBool(!all))
	res, err := cl.ImagePrune(ctx, client.ImagePruneOptions{Filters: f})
	if err != nil {
		return 0, err
	}
	if len(res.Report.ImagesDeleted) > 0 {
		fmt.Fprintln(out, "Deleted Images:")
		for _, d := range res.Report.ImagesDeleted {
			if d.Untagged != "" {
				fmt.Fprintln(out, "untagged:", d.Untagged)
			} else {
				fmt.Fprintln(out, "deleted:", d.Deleted)
			}
		}
		fmt.Fprintln(out)
	}
	return res.Report.SpaceReclaimed, nil
}
