package cli

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/minictl/minictl/cmd/internal/cli/console"
)

// exitUsage is docker's code for a bad flag of any command.
const exitUsage = 125

// refuseUnknown makes every command that only groups others say what it does not know, in one line; alone it prints
// its help.
func refuseUnknown(cmd *cobra.Command) {
	if !cmd.HasSubCommands() {
		return
	}
	cmd.Args, cmd.DisableFlagsInUseLine = cobra.ArbitraryArgs, true
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return unknownCommand(cmd, args[0])
	}
	if cmd.SuggestionsMinimumDistance == 0 {
		cmd.SuggestionsMinimumDistance = 2
	}
	for _, sub := range cmd.Commands() {
		refuseUnknown(sub)
	}
}

// unknownCommand suggests what cobra finds near; its own error has three lines and no usage.
func unknownCommand(cmd *cobra.Command, name string) error {
	instead := fmt.Sprintf("see '%s --help'", cmd.CommandPath())
	if s := cmd.SuggestionsFor(name); len(s) > 0 {
		path := cmd.CommandPath() + " "
		instead = fmt.Sprintf("did you mean '%s'?", path+strings.Join(s, "' or '"+path))
	}
	return fmt.Errorf("unknown command %q: %s", strings.TrimPrefix(cmd.CommandPath()+" "+name, "minictl "), instead)
}

// flagError says what is wrong with a flag and what to type instead.
func flagError(cmd *cobra.Command, err error) error {
	instead := fmt.Sprintf("see '%s --help'", cmd.CommandPath())
	if name, ok := strings.CutPrefix(err.Error(), "unknown flag: --"); ok {
		if near := nearestFlag(cmd, name); near != "" {
			instead = fmt.Sprintf("did you mean '--%s'? %s", near, instead)
		}
	}
	what := err.Error()
	if number := (*strconv.NumError)(nil); errors.As(err, &number) { // the value is named already, the function is nobody's business
		what = strings.Replace(what, number.Error(), number.Err.Error(), 1)
	}
	return console.Exit(exitUsage, fmt.Errorf("%s: %s: %s", console.Name(cmd), what, instead))
}

// nearestFlag finds the flag that name is most likely a slip of; empty when none is near.
func nearestFlag(cmd *cobra.Command, name string) string {
	best, bestDistance := "", 3
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if d := distance(name, f.Name); !f.Hidden && d < bestDistance {
			best, bestDistance = f.Name, d
		}
	})
	return best
}

// distance is Levenshtein's: the least number of letters to insert, drop or replace.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := diagonal
			if a[i-1] != b[j-1] {
				replace++
			}
			diagonal = row[j]
			row[j] = min(replace, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}

// usage is the help's template for a terminal's width in columns; 0 is no terminal, which docker takes for 80.
func usage(width uint) string {
	return strings.ReplaceAll(usageTemplate, "WIDTH", strconv.Itoa(int(cmp.Or(width, 80))))
}

// usageTemplate is cobra's, without its second usage line and with our words.
const usageTemplate = `Usage:  {{.UseLine}}
{{- if .Aliases}}

Aliases:
  {{.NameAndAliases}}
{{- end}}
{{- if .HasExample}}

Examples:
{{.Example}}
{{- end}}
{{- $cmds := .Commands}}
{{- range $group := .Groups}}

{{.Title}}
{{- range $cmds}}{{if and (eq .GroupID $group.ID) .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}
{{- end}}
{{- if and .HasAvailableSubCommands (not .Groups)}}

Commands:
{{- range $cmds}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}
{{- end}}
{{- if .HasAvailableLocalFlags}}

Options:
{{.LocalFlags.FlagUsagesWrapped WIDTH | trimTrailingWhitespaces}}
{{- end}}
{{- if .HasAvailableInheritedFlags}}

Global Options:
{{.InheritedFlags.FlagUsagesWrapped WIDTH | trimTrailingWhitespaces}}
{{- end}}
{{- if .HasAvailableSubCommands}}

Run '{{.CommandPath}} COMMAND --help' for more information on a command.
{{- end}}
`
