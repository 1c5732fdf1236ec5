// Package cli is the command line: minictl and all its commands, as a client of the daemon's API.
package cli

import (
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/minictl/minictl/cmd/internal/cli/cluster"
	"github.com/minictl/minictl/cmd/internal/cli/console"
	"github.com/minictl/minictl/cmd/internal/cli/container"
	"github.com/minictl/minictl/cmd/internal/cli/contexts"
	"github.com/minictl/minictl/cmd/internal/cli/image"
	"github.com/minictl/minictl/cmd/internal/cli/network"
	"github.com/minictl/minictl/cmd/internal/cli/node"
	"github.com/minictl/minictl/cmd/internal/cli/registry"
	"github.com/minictl/minictl/cmd/internal/cli/system"
	"github.com/minictl/minictl/cmd/internal/cli/volume"
)

// Streams are the process's standard streams; files that are terminals are used as such.
type Streams struct {
	In       io.ReadCloser
	Out, Err io.Writer
	// Version is the program's, for version and the User-Agent header; empty is "dev".
	Version string
}

// The groups of the help, in its order.
const (
	groupMain  = "main"
	groupNouns = "nouns"
	groupRest  = "rest"
)

// New builds the whole tree of commands. daemon are those that belong to the server's side, added as they are. Building
// reads no file and dials nothing.
func New(s Streams, daemon ...*cobra.Command) *cobra.Command {
	return newRoot(newConsole(s), daemon...)
}

func newConsole(s Streams) *console.Console {
	c := console.New(s.In, s.Out, s.Err)
	if c.Version = s.Version; c.Version == "" {
		c.Version = "dev"
	}
	return c
}

// newRoot silences cobra's own error printing: Main prints one line, with the exit code that belongs to it.
func newRoot(c *console.Console, daemon ...*cobra.Command) *cobra.Command {
	root := &cobra.Command{
		Use:   "minictl [OPTIONS] COMMAND",
		Short: "Containers on several hosts that reach each other by name",
		Example: `  minictl cluster init --advertise-addr eth0
  minictl network create -d overlay ov_net1
  minictl run -itd --name bbox1 --network ov_net1 busybox`,
		Version:           c.Version,
		SilenceErrors:     true,
		SilenceUsage:      true,
		TraverseChildren:  true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetIn(c.In)
	root.SetOut(c.Out)
	root.SetErr(c.Err)
	root.SetVersionTemplate("minictl version {{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	_, width := c.Out.GetTtySize()
	root.SetUsageTemplate(usage(width))
	root.SetHelpCommandGroupID(groupRest)
	c.Daemon.AddFlags(root.Flags())
	root.Flags().BoolVarP(&c.Debug, "debug", "D", os.Getenv("MINICTL_DEBUG") != "", "Print the requests to the daemon")
	root.AddGroup(&cobra.Group{ID: groupMain, Title: "Common Commands:"},
		&cobra.Group{ID: groupNouns, Title: "Management Commands:"},
		&cobra.Group{ID: groupRest, Title: "Commands:"})
	addGroup(root, groupNouns, cluster.NewCommand(c), node.NewCommand(c), network.NewCommand(c),
		volume.NewCommand(c), container.NewCommand(c), image.NewCommand(c), system.NewCommand(c), contexts.NewCommand(c))
	_ = root.RegisterFlagCompletionFunc("context", contexts.Complete())
	top := slices.Concat(container.Commands(c), image.Commands(c), registry.Commands(c))
	for _, cmd := range append(top, system.Commands(c, c.Version)...) {
		addGroup(root, groupOf(cmd.Name()), cmd)
	}
	addGroup(root, groupRest, newCompletionCommand(c), newDNSCommand(c))
	anywhere(root)
	addGroup(root, groupMain, daemon...)
	refuseUnknown(root)
	return root
}

// anywhere makes the root's flags known behind a command as well, by their long names: docker wants them in front, and
// their letters mean something else behind some commands (run -c, history -H). They are not repeated in every help.
func anywhere(root *cobra.Command) {
	root.Flags().VisitAll(func(f *pflag.Flag) {
		long := *f
		long.Shorthand, long.Hidden = "", true
		for _, cmd := range root.Commands() {
			cmd.PersistentFlags().AddFlag(&long)
		}
	})
}

func addGroup(root *cobra.Command, group string, cmds ...*cobra.Command) {
	for _, cmd := range cmds {
		cmd.GroupID = group
		root.AddCommand(cmd)
	}
}

// groupOf puts what a user types every day first in the help.
func groupOf(name string) string {
	switch name {
	case "run", "exec", "ps", "logs", "pull", "images", "version", "info":
		return groupMain
	}
	return groupRest
}
