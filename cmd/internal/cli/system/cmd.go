// Package system has the commands about the daemon as a whole: version, info, events, and inspect of any object.
package system

import (
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/console"
)

// Commands gives the commands that stand at the top level.
func Commands(c *console.Console, version string) []*cobra.Command {
	return []*cobra.Command{newVersionCommand(c, version), newInfoCommand(c), newEventsCommand(c), newInspectCommand(c)}
}

// NewCommand gives minictl system, with docker's names for the same commands.
func NewCommand(c *console.Console) *cobra.Command {
	cmd := &cobra.Command{Use: "system COMMAND", Short: "Show the daemon's state", Example: "  minictl system info"}
	cmd.AddCommand(newInfoCommand(c), newEventsCommand(c), newDfCommand(c), newPruneCommand(c), newDialStdioCommand(c))
	return cmd
}
