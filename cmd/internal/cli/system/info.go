package system

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/cmd/internal/cli/clusterapi"
	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
	"github.com/minictl/minictl/cmd/internal/cli/inspect"
)

func newInfoCommand(c *console.Console) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:                   "info [OPTIONS]",
		Short:                 "Display system-wide information",
		Example:               "  minictl info\n  minictl info -f '{{.Swarm.NodeAddr}}'",
		Args:                  console.NoArgs,
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, _ []string) error {
			return runInfo(ctx, cl, clusterapi.New(cl), c, format)
		}),
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", inspect.FormatHelp("{{.ServerVersion}}"))
	return cmd
}

// infoClient is what info needs of the daemon.
type infoClient interface {
	Info(ctx context.Context, o client.InfoOptions) (client.SystemInfoResult, error)
}

// storeClient knows which store decides for the cluster; docker's Info has lost the field for it.
type storeClient interface {
	Status(ctx context.Context) (api.ClusterStatus, error)
}

func runInfo(ctx context.Context, cl infoClient, st storeClient, c *console.Console, format string) error {
	res, err := cl.Info(ctx, client.InfoOptions{})
	if err != nil {
		return err
	}
	if format != "" {
		return inspect.Print(c.Out, res.Info, format)
	}
	fmt.Fprintf(c.Out, "Client:\n Version:    %s\n Context:    %s\n Debug Mode: %t\n\n", c.Version, c.Daemon.ContextName(c.Config()), c.Debug)
	var cluster api.ClusterStatus
	if res.Info.Swarm.LocalNodeState == swarm.LocalNodeStateActive {
		cluster, _ = st.Status(ctx) // a line less is better than no answer
	}
	writeInfo(c.Out, res.Info, cluster.Store)
	for _, w := range res.Info.Warnings {
		c.Warn([]string{strings.TrimPrefix(w, "WARNING: ")})
	}
	return nil
}

// writeInfo prints the lines that say something about this daemon; docker's order and names.
func writeInfo(out io.Writer, i system.Info, store string) {
	line := func(indent int, name string, value any) {
		if s := fmt.Sprint(value); s != "" && s != "0" {
			fmt.Fprintf(out, "%s%s: %s\n", strings.Repeat(" ", indent), name, s)
		}
	}
	fmt.Fprintf(out, "Server:\n Containers: %d\n  Running: %d\n  Paused: %d\n  Stopped: %d\n Images: %d\n",
		i.Containers, i.ContainersRunning, i.ContainersPaused, i.ContainersStopped, i.Images)
	line(1, "Server Version", i.ServerVersion)
	line(1, "Storage Driver", i.Driver)
	for _, kv := range i.DriverStatus {
		line(2, kv[0], kv[1])
	}
	line(1, "Logging Driver", i.LoggingDriver)
	line(1, "Cgroup Driver", i.CgroupDriver)
	line(1, "Cgroup Version", i.CgroupVersion)
	if len(i.Plugins.Network) > 0 {
		fmt.Fprintln(out, " Plugins:")
		line(2, "Volume", strings.Join(i.Plugins.Volume, " "))
		line(2, "Network", strings.Join(i.Plugins.Network, " "))
		line(2, "Log", strings.Join(i.Plugins.Log, " "))
	}
	fmt.Fprintf(out, " Cluster: %s\n", i.Swarm.LocalNodeState)
	line(2, "NodeID", i.Swarm.NodeID)
	line(2, "Node Address", i.Swarm.NodeAddr)
	line(2, "Nodes", i.Swarm.Nodes)
	line(1, "Cluster Store", store)
	if store != "" {
		line(1, "Cluster Advertise", i.Swarm.NodeAddr)
	}
	line(1, "Runtimes", strings.Join(slices.Sorted(maps.Keys(i.Runtimes)), " "))
	line(1, "Default Runtime", i.DefaultRuntime)
	line(1, "Init Binary", i.InitBinary)
	line(1, "containerd version", i.ContainerdCommit.ID)
	line(1, "runc version", i.RuncCommit.ID)
	writeSecurity(out, i.SecurityOptions)
	line(1, "Kernel Version", i.KernelVersion)
	line(1, "Operating System", i.OperatingSystem)
	line(1, "OSType", i.OSType)
	line(1, "Architecture", i.Architecture)
	line(1, "CPUs", i.NCPU)
	if i.MemTotal > 0 {
		line(1, "Total Memory", units.BytesSize(float64(i.MemTotal)))
	}
	line(1, "Name", i.Name)
	line(1, "ID", i.ID)
	line(1, "Docker Root Dir", i.DockerRootDir)
	line(1, "Debug Mode", i.Debug)
	line(1, "HTTP Proxy", i.HTTPProxy)
	line(1, "HTTPS Proxy", i.HTTPSProxy)
	line(1, "No Proxy", i.NoProxy)
	if len(i.Labels) > 0 {
		fmt.Fprintf(out, " Labels:\n  %s\n", strings.Join(i.Labels, "\n  "))
	}
	line(1, "Live Restore Enabled", i.LiveRestoreEnabled)
}

// writeSecurity splits options such as "name=seccomp,profile=builtin" as docker does.
func writeSecurity(out io.Writer, options []string) {
	if len(options) == 0 {
		return
	}
	fmt.Fprintln(out, " Security Options:")
	for _, o := range options {
		name, rest, _ := strings.Cut(strings.TrimPrefix(o, "name="), ",")
		fmt.Fprintln(out, "  "+name)
		if key, value, _ := strings.Cut(rest, "="); key != "" {
			fmt.Fprintf(out, "   %s: %s\n", strings.ToUpper(key[:1])+key[1:], value)
		}
	}
}
