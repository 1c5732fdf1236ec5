package system

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"

	"github.com/docker/cli/cli/command/formatter/tabwriter"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
	"github.com/minictl/minictl/cmd/internal/cli/inspect"
)

// clientVersion is this side of version's answer; the fields are docker's.
type clientVersion struct {
	Version    string
	APIVersion string `json:"ApiVersion"`
	GoVersion  string
	Os         string
	Arch       string
	Context    string
}

// versions is what version's templates see.
type versions struct {
	Client clientVersion
	Server *client.ServerVersionResult
}

func newVersionCommand(c *console.Console, version string) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:                   "version [OPTIONS]",
		Short:                 "Show the minictl version information",
		Example:               "  minictl version\n  minictl version -f '{{.Server.Version}}'",
		Args:                  console.NoArgs,
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, _ []string) error {
			return runVersion(ctx, cl, c.Out, clientVersion{Version: version, Context: c.Daemon.ContextName(c.Config())}, format)
		}),
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", inspect.FormatHelp("{{.Server.Version}}"))
	return cmd
}

// versionClient is what version needs of the daemon.
type versionClient interface {
	ClientVersion() string
	ServerVersion(ctx context.Context, o client.ServerVersionOptions) (client.ServerVersionResult, error)
}

// runVersion shows this side even when the daemon does not answer; that error comes after it.
func runVersion(ctx context.Context, cl versionClient, out io.Writer, this clientVersion, format string) error {
	server, serverErr := cl.ServerVersion(ctx, client.ServerVersionOptions{}) // first: it settles the API's version
	this.APIVersion, this.GoVersion, this.Os, this.Arch = cl.ClientVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH
	v := versions{Client: this}
	if serverErr == nil {
		v.Server = &server
	}
	if format != "" {
		return cmp.Or(inspect.Print(out, v, format), serverErr)
	}
	if err := writeVersions(out, v); err != nil {
		return err
	}
	return serverErr
}

func writeVersions(out io.Writer, v versions) error {
	w := tabwriter.NewWriter(out, 20, 1, 1, ' ', 0)
	fmt.Fprintf(w, "Client:\n Version:\t%s\n API version:\t%s\n Go version:\t%s\n OS/Arch:\t%s/%s\n Context:\t%s\n",
		v.Client.Version, v.Client.APIVersion, v.Client.GoVersion, v.Client.Os, v.Client.Arch, v.Client.Context)
	if s := v.Server; s != nil {
		fmt.Fprintf(w, "\nServer: %s\n", s.Platform.Name)
		for _, c := range s.Components {
			fmt.Fprintf(w, " %s:\n  Version:\t%s\n", c.Name, c.Version)
			writeDetails(w, c)
		}
	}
	return w.Flush()
}

func writeDetails(w io.Writer, c system.ComponentVersion) {
	d := c.Details
	if d["ApiVersion"] != "" {
		fmt.Fprintf(w, "  API version:\t%s (minimum version %s)\n", d["ApiVersion"], d["MinAPIVersion"])
	}
	for _, f := range [][2]string{{"GoVersion", "Go version"}, {"GitCommit", "Git commit"}, {"KernelVersion", "Kernel"}} {
		if d[f[0]] != "" {
			fmt.Fprintf(w, "  %s:\t%s\n", f[1], d[f[0]])
		}
	}
	if d["Os"] != "" {
		fmt.Fprintf(w, "  OS/Arch:\t%s\n", strings.Join([]string{d["Os"], d["Arch"]}, "/"))
	}
}
