// minictl runs containers on a handful of machines that reach each other by name: the command line and, as `minictl
// daemon`, the daemon.
package main

import (
	"context"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli"
	"github.com/minictl/minictl/cmd/internal/inside"
	"github.com/minictl/minictl/cmd/internal/version"
)

// programs is where the daemon's program is kept.
const programs = "/var/lib/minictl/programs"

func main() {
	streams := cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Version: version.Version}
	os.Exit(cli.Main(context.Background(), os.Args[1:], streams, daemon(os.Args)))
}

// daemon stands for the daemon's command among the others: all that one can ask of it goes to the program with the daemon,
// by the same arguments.
func daemon(args []string) *cobra.Command {
	become := func() error { return inside.Exec(place(args), args, os.Environ()) }
	cmd := &cobra.Command{
		Use:                "daemon [OPTIONS]",
		Short:              "Run the daemon on this host",
		DisableFlagParsing: true,
		RunE:               func(*cobra.Command, []string) error { return become() },
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			_ = become()
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
