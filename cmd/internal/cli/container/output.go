package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"

	"github.com/fvbommel/sortorder"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
	"github.com/minictl/minictl/cmd/internal/cli/inspect"
)

// inspectClient is what commands need that look at one container.
type inspectClient interface {
	ContainerInspect(ctx context.Context, id string, o client.ContainerInspectOptions) (client.ContainerInspectResult, error)
}

func newInspectCommand(c *console.Console) *cobra.Command {
	var (
		format string
		size   bool
	)
	cmd := each("inspect [OPTIONS] CONTAINER [CONTAINER...]", "Display detailed information on one or more containers",
		"  minictl container inspect -f '{{.State.Status}}' web1", complete.Containers(c, true))
	cmd.Flags().StringVarP(&format, "format", "f", "", inspect.FormatHelp("{{.Id}}"))
	cmd.Flags().BoolVarP(&size, "size", "s", false, "Display total file sizes")
	cmd.RunE = c.WithClient(func(ctx context.Context, cl *client.Client, refs []string) error {
		return inspect.Write(c.Out, refs, format, Getter(ctx, cl, size))
	})
	return cmd
}

// Getter finds a container for the inspect commands.
func Getter(ctx context.Context, cl inspectClient, size bool) inspect.Getter {
	return func(ref string) (any, []byte, error) {
		res, err := cl.ContainerInspect(ctx, ref, client.ContainerInspectOptions{Size: size})
		return &res.Container, res.Raw, err
	}
}

func newLogsCommand(c *console.Console) *cobra.Command {
	var o client.ContainerLogsOptions
	cmd := each("logs [OPTIONS] CONTAINER", "Fetch the logs of a container",
		"  minictl logs -f --tail 20 web1\n  minictl logs --since 10m web1", complete.First(1, complete.Containers(c, true)))
	cmd.Args = console.Exactly(1)
	fs := cmd.Flags()
	fs.BoolVarP(&o.Follow, "follow", "f", false, "Follow log output")
	fs.StringVar(&o.Since, "since", "",
		`Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	fs.StringVar(&o.Until, "until", "",
		`Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	fs.BoolVarP(&o.Timestamps, "timestamps", "t", false, "Show timestamps")
	fs.BoolVar(&o.Details, "details", false, "Show extra details provided to logs")
	fs.StringVarP(&o.Tail, "tail", "n", "all", "Number of lines to show from the end of the logs")
	cmd.RunE = c.WithClient(func(ctx context.Context, cl *client.Client, args []string) error {
		return runLogs(ctx, cl, c.Out, c.Err, args[0], o)
	})
	return cmd
}

// logsClient is what logs needs of the daemon.
type logsClient interface {
	inspectClient
	ContainerLogs(ctx context.Context, id string, o client.ContainerLogsOptions) (client.ContainerLogsResult, error)
}

// runLogs looks at the container first: only its configuration tells whether the log is one stream or two.
func runLogs(ctx context.Context, cl logsClient, out, errs io.Writer, ref string, o client.ContainerLogsOptions) error {
	res, err := cl.ContainerInspect(ctx, ref, client.ContainerInspectOptions{})
	if err != nil {
		return err
	}
	o.ShowStdout, o.ShowStderr = true, true
	lines, err := cl.ContainerLogs(ctx, res.Container.ID, o)
	if err != nil {
		return err
	}
	defer lines.Close()
	if res.Container.Config.Tty {
		_, err = io.Copy(out, lines)
		return err
	}
	_, err = stdcopy.StdCopy(out, errs, lines)
	return err
}

func newPortCommand(c *console.Console) *cobra.Command {
	return &cobra.Command{
		Use:                   "port CONTAINER [PRIVATE_PORT[/PROTO]]",
		Short:                 "List port mappings or a specific mapping for the container",
		Example:               "  minictl port web1\n  minictl port web1 80/tcp",
		Args:                  console.Between(1, 2),
		ValidArgsFunction:     complete.First(1, complete.Containers(c, false)),
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, args []string) error {
			port := ""
			if len(args) > 1 {
				port = args[1]
			}
			return runPort(ctx, cl, c.Out, args[0], port)
		}),
	}
}

func runPort(ctx context.Context, cl inspectClient, out io.Writer, ref, port string) error {
	res, err := cl.ContainerInspect(ctx, ref, client.ContainerInspectOptions{})
	if err != nil {
		return err
	}
	if res.Container.NetworkSettings == nil {
		return errors.New("the daemon's answer has no network settings")
	}
	lines, err := portLines(res.Container.NetworkSettings.Ports, ref, port)
	for _, l := range lines {
		fmt.Fprintln(out, l)
	}
	return err
}

// portLines gives "80/tcp -> 0.0.0.0:8080" for all ports, or only the right side for the one asked for.
func portLines(ports network.PortMap, ref, port string) ([]string, error) {
	var lines []string
	if port != "" {
		p, err := network.ParsePort(port)
		if err != nil {
			return nil, err
		}
		for _, b := range ports[p] {
			lines = append(lines, net.JoinHostPort(b.HostIP.String(), b.HostPort))
		}
		if len(lines) == 0 {
			return nil, fmt.Errorf("no public port '%s' published for %s", port, ref)
		}
	} else {
		for p, bindings := range ports {
			for _, b := range bindings {
				lines = append(lines, fmt.Sprintf("%s -> %s", p, net.JoinHostPort(b.HostIP.String(), b.HostPort)))
			}
		}
	}
	slices.SortFunc(lines, sortorder.NaturalCompare)
	return lines, nil
}
