package inside

import (
	"os"
	"slices"

	"github.com/spf13/cobra"
)

// programs is where the daemon's program is kept.
const programs = "/var/lib/minictl/programs"

// Commands stand for the daemon's commands among the others: all that one can ask of them goes to the program with the
// daemon, by the same arguments. They are the process's, its own name included.
func Commands(args []string) []*cobra.Command {
	return []*cobra.Command{
		command(args, "daemon [OPTIONS]", "Run the daemon on this host"),
		command(args, "witness [OPTIONS]", "Vote in a cluster of other hosts, and run no containers"),
	}
}

func command(args []string, use, short string) *cobra.Command {
	become := func() error { return Exec(place(args), args, os.Environ()) }
	cmd := &cobra.Command{
		Use:                use,
		Short:              short,
		DisableFlagParsing: true,
		RunE:               func(*cobra.Command, []string) error { return become() },
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			_ = become() // a shell that completes has no place for an error
			return nil, cobra.ShellCompDirectiveError
		},
	}
	cmd.SetHelpFunc(func(*cobra.Command, []string) {
		if err := become(); err != nil {
			cmd.PrintErrln("minictl:", err)
		}
	})
	return cmd
}

// place is programs, or "" when the daemon is asked for something that ends at once: that leaves nothing behind.
func place(args []string) string {
	for _, passing := range []string{"help", "--help", "-h", "--validate", "--cleanup", cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd} {
		if slices.Contains(args, passing) {
			return ""
		}
	}
	return programs
}
