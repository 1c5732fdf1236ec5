// Command minictl-man writes the man pages of all commands into a folder: a page a command, its example included.
package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"

	"github.com/minictl/minictl/cmd/internal/cli"
	minictl "github.com/minictl/minictl/cmd/internal/config"
	"github.com/minictl/minictl/cmd/internal/daemon"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: minictl-man FOLDER")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "minictl-man:", err)
		os.Exit(1)
	}
}

// write makes pages that are the same wherever they are made: defaults that depend on the user's home say so, and the
// date is SOURCE_DATE_EPOCH's when that is set.
func write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root := tree()
	escape(root)
	return doc.GenManTreeFromOpts(root, doc.GenManTreeOptions{Path: dir, CommandSeparator: "-", Header: &doc.GenManHeader{
		Title: "MINICTL", Section: "1", Source: "minictl " + minictl.Version, Manual: "minictl",
	}})
}

func tree() *cobra.Command {
	config.SetDir("~/.docker")
	root := cli.New(cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Version: minictl.Version}, daemon.Command(minictl.Version), daemon.WitnessCommand(minictl.Version))
	root.DisableAutoGenTag = true
	return root
}

// escape keeps <name> in texts, which are markdown to the generator, from being taken for HTML.
func escape(cmd *cobra.Command) {
	plain := strings.NewReplacer("<", `\<`).Replace
	cmd.Short, cmd.Long = plain(cmd.Short), plain(cmd.Long)
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if !strings.Contains(f.Usage, `\<`) {
			f.Usage = plain(f.Usage)
		}
	})
	for _, sub := range cmd.Commands() {
		escape(sub)
	}
}
