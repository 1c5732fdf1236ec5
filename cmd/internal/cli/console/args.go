package console

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// NoArgs refuses any argument.
func NoArgs(cmd *cobra.Command, args []string) error { return Between(0, 0)(cmd, args) }

// Exactly wants n arguments.
func Exactly(n int) cobra.PositionalArgs { return Between(n, n) }

// AtLeast wants n arguments or more.
func AtLeast(n int) cobra.PositionalArgs { return Between(n, -1) }

// Between wants low to high arguments; high -1 is without limit. The error is one line: what is wrong, the right form,
// and where to read more.
func Between(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= low && (high < 0 || len(args) <= high) {
			return nil
		}
		return fmt.Errorf("%s needs %s, got %d: usage: %s; see '%s --help'",
			Name(cmd), wanted(low, high), len(args), cmd.UseLine(), cmd.CommandPath())
	}
}

// Name is the command as errors name it: its path without the program, whose name stands in front anyway.
func Name(cmd *cobra.Command) string {
	return strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
}

func wanted(low, high int) string {
	switch {
	case high == 0:
		return "no arguments"
	case low == high:
		return plural("exactly", low)
	case high < 0:
		return plural("at least", low)
	}
	return fmt.Sprintf("%d to %d arguments", low, high)
}

func plural(how string, n int) string {
	if n == 1 {
		return how + " 1 argument"
	}
	return fmt.Sprintf("%s %d arguments", how, n)
}

// EachError runs do for every name, prints the names that went well and the errors of those that did not, and names
// the failures in the error at the end: docker's way for commands that take several objects.
func (c *Console) EachError(names []string, what string, do func(name string) error) error {
	var failed []string
	for _, n := range names {
		err := do(n)
		if errors.As(err, &quiet{}) {
			continue
		}
		if err != nil && len(names) == 1 {
			return Exit(1, err) // one line says it all
		}
		if err != nil {
			fmt.Fprintln(c.Err, c.Explain(err))
			failed = append(failed, n)
			continue
		}
		fmt.Fprintln(c.Out, n)
	}
	if len(failed) == 0 {
		return nil
	}
	return Exit(1, fmt.Errorf("failed to %s: %s", what, strings.Join(failed, ", ")))
}

// quiet is an error that EachError neither prints nor counts.
type quiet struct{ error }

// Quiet marks err as one that --force makes harmless: the object is not named in the output, and nothing is reported.
func Quiet(err error) error { return quiet{err} }
