package volume

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
)

func newCreateCommand(c *console.Console) *cobra.Command {
	var o client.VolumeCreateOptions
	driverOpts, labels := opts.NewMapOpts(nil, nil), opts.NewListOpts(opts.ValidateLabel)
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] [VOLUME]",
		Short: "Create a volume",
		Example: `  minictl volume create data
  minictl volume create -o type=tmpfs -o device=tmpfs -o o=size=100m scratch`,
		Args:                  console.Between(0, 1),
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, args []string) error {
			if len(args) == 1 {
				if o.Name != "" {
					return errors.New("conflicting options: cannot specify a volume-name through both --name and as a positional arg")
				}
				o.Name = args[0]
			}
			o.DriverOpts, o.Labels = driverOpts.GetAll(), opts.ConvertKVStringsToMap(labels.GetSlice())
			return runCreate(ctx, cl, c.Out, o)
		}),
	}
	fs := cmd.Flags()
	fs.StringVarP(&o.Driver, "driver", "d", "local", "Specify volume driver name")
	fs.StringVar(&o.Name, "name", "", "Specify volume name")
	_ = fs.MarkHidden("name") // docker's older spelling
	fs.VarP(driverOpts, "opt", "o", "Set driver specific options")
	fs.Var(&labels, "label", "Set metadata for a volume")
	_ = cmd.RegisterFlagCompletionFunc("driver", cobra.FixedCompletions([]string{"local"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// createClient is what create needs of the daemon.
type createClient interface {
	VolumeCreate(ctx context.Context, o client.VolumeCreateOptions) (client.VolumeCreateResult, error)
}

// runCreate prints the name, which is the daemon's choice when none was given.
func runCreate(ctx context.Context, cl createClient, out io.Writer, o client.VolumeCreateOptions) error {
	res, err := cl.VolumeCreate(ctx, o)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, res.Volume.Name)
	return nil
}
