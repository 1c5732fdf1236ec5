// Package contexts has the commands about contexts: named daemons, kept where docker keeps its own.
package contexts

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/cli/cli/context/docker"
	"github.com/docker/cli/cli/context/store"
	"github.com/fvbommel/sortorder"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
	"github.com/minictl/minictl/cmd/internal/cli/dial"
)

// NewCommand gives minictl context.
func NewCommand(c *console.Console) *cobra.Command {
	cmd := &cobra.Command{
		Use: "context COMMAND", Short: "Manage contexts: named daemons on this and other machines",
		Long: "Manage contexts: named daemons on this and other machines. They are docker's own: what \"docker context create\"\n" +
			"made is found here and the other way round. Which one is used by default is each program's own choice.",
		Example: "  minictl context create lab --docker host=ssh://root@host1\n  minictl context use lab",
	}
	cmd.AddCommand(newCreateCommand(c), newListCommand(c), newInspectCommand(c), newRemoveCommand(c), newShowCommand(c), newUseCommand(c),
		newExportCommand(c), newImportCommand(c), newUpdateCommand(c))
	return cmd
}

// names completes with the contexts there are.
func names(withDefault bool) complete.Func {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		found, err := store.Names(dial.Contexts())
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		if withDefault {
			found = append(found, dial.DefaultContext)
		}
		return slices.DeleteFunc(found, func(n string) bool { return slices.Contains(args, n) }), cobra.ShellCompDirectiveNoFileComp
	}
}

// Complete offers the contexts to --context.
func Complete() complete.Func { return names(true) }

func newListCommand(c *console.Console) *cobra.Command {
	var (
		format string
		quiet  bool
	)
	cmd := &cobra.Command{
		Use:                   "ls [OPTIONS]",
		Aliases:               []string{"list"},
		Short:                 "List contexts",
		Example:               "  minictl context ls",
		Args:                  console.NoArgs,
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: func(*cobra.Command, []string) error {
			if format == "" {
				format = formatter.TableFormatKey
			}
			rows, err := list(c)
			if err != nil {
				return err
			}
			return formatter.ClientContextWrite(
				formatter.Context{Output: c.Out, Format: formatter.NewClientContextFormat(format, quiet)}, rows)
		},
	}
	cmd.Flags().StringVar(&format, "format", "", console.FormatHelp)
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only show context names")
	return cmd
}

// list shows a context that cannot be read as well, with what is wrong: it is one to be removed.
func list(c *console.Console) ([]*formatter.ClientContext, error) {
	metas, err := dial.Contexts().List()
	if err != nil {
		return nil, err
	}
	rows := []*formatter.ClientContext{{Name: dial.DefaultContext,
		Description: "The flags, " + dial.HostEnv + ", or this machine's daemon", DockerEndpoint: c.Daemon.DefaultHost()}}
	for _, m := range metas {
		row := &formatter.ClientContext{Name: m.Name}
		if meta, ok := m.Metadata.(dial.Meta); ok {
			row.Description, _ = meta["Description"].(string)
		}
		ep, err := docker.EndpointFromContext(m)
		if err != nil {
			row.Error = err.Error()
		}
		row.DockerEndpoint = ep.Host
		rows = append(rows, row)
	}
	current := c.Daemon.ContextName(c.Config())
	found := false
	for _, r := range rows {
		r.Current = r.Name == current
		found = found || r.Current
	}
	if !found {
		rows = append(rows, &formatter.ClientContext{Name: current, Current: true, Error: "there is no such context"})
	}
	slices.SortFunc(rows, func(a, b *formatter.ClientContext) int { return sortorder.NaturalCompare(a.Name, b.Name) })
	return rows, nil
}

func newShowCommand(c *console.Console) *cobra.Command {
	return &cobra.Command{
		Use:                   "show",
		Short:                 "Print the name of the current context",
		Example:               "  minictl context show",
		Args:                  console.NoArgs,
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(c.Out, c.Daemon.ContextName(c.Config()))
			return err
		},
	}
}

func newUseCommand(c *console.Console) *cobra.Command {
	return &cobra.Command{
		Use:                   "use CONTEXT",
		Short:                 "Set the context that later commands use",
		Example:               "  minictl context use lab\n  minictl context use default",
		Args:                  console.Exactly(1),
		ValidArgsFunction:     complete.First(1, names(true)),
		DisableFlagsInUseLine: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if args[0] != dial.DefaultContext {
				if _, err := dial.Contexts().GetMetadata(args[0]); err != nil {
					return err
				}
			}
			if err := dial.UseContext(c.Config(), args[0]); err != nil {
				return err
			}
			fmt.Fprintln(c.Out, args[0])
			fmt.Fprintf(c.Err, "Current context is now %q\n", args[0])
			for _, env := range []string{dial.HostEnv, dial.ContextEnv} {
				if os.Getenv(env) != "" {
					c.Warn([]string{fmt.Sprintf("%s is set and goes before it", env)})
				}
			}
			return nil
		},
	}
}

func newRemoveCommand(c *console.Console) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:                   "rm CONTEXT [CONTEXT...]",
		Aliases:               []string{"remove"},
		Short:                 "Remove one or more contexts",
		Example:               "  minictl context rm lab",
		Args:                  console.AtLeast(1),
		ValidArgsFunction:     names(false),
		DisableFlagsInUseLine: true,
		RunE: func(_ *cobra.Command, refs []string) error {
			return c.EachError(refs, "remove contexts", func(name string) error { return remove(c, name, force) })
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the removal of a context in use")
	return cmd
}

// remove leaves no choice of a context that is not there behind.
func remove(c *console.Console, name string, force bool) error {
	if name == dial.DefaultContext {
		return errors.New(`context "default" cannot be removed`)
	}
	s := dial.Contexts()
	if _, err := s.GetMetadata(name); err != nil {
		if force {
			return console.Quiet(err)
		}
		return err
	}
	if name == c.Daemon.ContextName(c.Config()) {
		if !force {
			return fmt.Errorf("context %q is in use, set -f flag to force remove", name)
		}
		if err := dial.UseContext(c.Config(), dial.DefaultContext); err != nil {
			return err
		}
	}
	return s.Remove(name)
}
