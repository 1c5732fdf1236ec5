// Package container has the commands about containers: run, exec, ps, logs and the like.
package container

import (
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/console"
)

// Commands gives the commands that stand at the top level, such as minictl run.
func Commands(c *console.Console) []*cobra.Command {
	return append(shared(c), newPsCommand(c), newRemoveCommand(c))
}

// NewCommand gives minictl container, with docker's names for the same commands.
func NewCommand(c *console.Console) *cobra.Command {
	cmd := &cobra.Command{Use: "container COMMAND", Short: "Manage containers", Example: "  minictl container ls -a"}
	cmd.AddCommand(shared(c)...)
	ls := newPsCommand(c)
	ls.Use, ls.Aliases = "ls [OPTIONS]", []string{"list", "ps"}
	rm := newRemoveCommand(c)
	rm.Aliases = []string{"remove"}
	cmd.AddCommand(ls, rm, newInspectCommand(c), newPruneCommand(c))
	return cmd
}

// shared are spelled the same in both places. A command has one parent, so each place gets its own.
func shared(c *console.Console) []*cobra.Command {
	return []*cobra.Command{
		newRunCommand(c), newCreateCommand(c), newStartCommand(c), newStopCommand(c), newRestartCommand(c),
		newKillCommand(c), newRenameCommand(c), newWaitCommand(c), newExecCommand(c), newAttachCommand(c),
		newLogsCommand(c), newPortCommand(c), newCpCommand(c), newExportCommand(c), newDiffCommand(c), newCommitCommand(c),
		newPauseCommand(c), newUnpauseCommand(c), newTopCommand(c), newStatsCommand(c), newUpdateCommand(c),
	}
}
