package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Every command that help shows has a page, with its example and all of its flags.
func TestEveryCommandHasItsPage(t *testing.T) {
	dir := t.TempDir()
	if err := write(dir); err != nil {
		t.Fatal(err)
	}
	// As the eye sees it, without roff's marks.
	plain := strings.NewReplacer(`\-`, "-", `\fB`, "", `\fR`, "", `\fP`, "", `\fI`, "", `\(dq`, `"`, `\&`, "", `\[rs]`, `\`, `\\`, `\`)
	pages := 0
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if !cmd.IsAvailableCommand() && cmd.HasParent() {
			return
		}
		pages++
		b, err := os.ReadFile(filepath.Join(dir, strings.ReplaceAll(cmd.CommandPath(), " ", "-")+".1"))
		if err != nil {
			t.Error(err)
			return
		}
		text := plain.Replace(string(b))
		for line := range strings.Lines(cmd.Example) {
			if !strings.Contains(text, strings.TrimSpace(line)) {
				t.Errorf("%s: no example %q", cmd.CommandPath(), line)
			}
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && !strings.Contains(text, "--"+f.Name) {
				t.Errorf("%s: no --%s", cmd.CommandPath(), f.Name)
			}
		})
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(tree())
	if pages < 100 {
		t.Errorf("only %d pages", pages)
	}
	b, err := os.ReadFile(filepath.Join(dir, "minictl-run.1"))
	if want := "<name|uid>[:<group|gid>]"; err != nil || !strings.Contains(plain.Replace(string(b)), want) {
		t.Errorf("%v: run's page does not hold %s", err, want)
	}
}
