package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/console"
)

// newCompletionCommand prints scripts that ask this program, which asks the daemon, for every word: live names.
func newCompletionCommand(c *console.Console) *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print the script that completes commands, flags and names in a shell",
		Long: "Print the script that completes commands, flags and the names of containers, images, networks, volumes and nodes\n" +
			"in a shell. A package installs it; by hand it goes where the examples say.",
		Example: `  minictl completion bash > /etc/bash_completion.d/minictl
  minictl completion zsh > "${fpath[1]}/_minictl"
  minictl completion fish > ~/.config/fish/completions/minictl.fish`,
		Args:                  console.Exactly(1),
		ValidArgs:             []string{"bash", "zsh", "fish"},
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(c.Out, true)
			case "zsh":
				return root.GenZshCompletion(c.Out)
			case "fish":
				return root.GenFishCompletion(c.Out, true)
			}
			return fmt.Errorf("there is no completion for %q: want bash, zsh or fish", args[0])
		},
	}
}
