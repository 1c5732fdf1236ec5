package e2e

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

// commandsTable is where a person looks a command up.
const commandsTable = "COMMANDS.md"

// Rewrites COMMANDS.md:
//
//	go test ./testing/e2e -run TestCommandsTable -table
var writeTable = flag.Bool("table", false, "rewrite "+commandsTable)

// TestCommandsTable: the table that people read is the one that TestDockerCommands runs.
func TestCommandsTable(t *testing.T) {
	t.Parallel()
	want := tableOf(dockerSteps())
	if *writeTable {
		if err := os.WriteFile(commandsTable, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(commandsTable)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the tests run: go test ./testing/e2e -run TestCommandsTable -table", commandsTable)
	}
}

// tableOf writes the steps for people.
func tableOf(steps []dockerStep) string {
	var b strings.Builder
	b.WriteString(`# docker's commands

Every command of the stock docker CLI, what it comes to with minictl's daemon, and the tests of this folder that run it.
Most of them run minictl's own command of the same name as well. TestDockerCommands goes through docker's own help, so
that no command is left out here, and TestCommandsTable writes this page. Not in it is what docker's client does alone:
context, manifest, trust, completion.

| docker … | here | tests |
|---|---|---|
`)
	for _, s := range steps {
		here, tests := "works", []string{}
		switch {
		case s.note != "":
			here = s.note
		case s.code != 0:
			here = "refused: " + strings.ReplaceAll(s.want, "|", `\|`)
		}
		if s.args != "" || s.want != "" {
			tests = append(tests, "TestDockerCommands")
		}
		if s.test != "" {
			tests = append(tests, s.test)
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", s.command, here, strings.Join(tests, ", "))
	}
	return b.String()
}
