package arch

import (
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
)

// TestFailureTable holds testing/FAILURES.md to what it says: sixteen rows, and every test that one names exists.
func TestFailureTable(t *testing.T) { holdTable(t, "../FAILURES.md", 17) }

// TestNetworkTable does the same for testing/NETWORKS.md.
func TestNetworkTable(t *testing.T) { holdTable(t, "../NETWORKS.md", 39) }

// holdTable wants a table to have so many numbered rows, each of which names tests that exist or says that there is none.
func holdTable(t *testing.T, file string, want int) {
	t.Helper()
	table, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	files, err := Read("../..")
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	for _, f := range files {
		for _, m := range declared.FindAllStringSubmatch(f.Text, -1) {
			have[path.Base(path.Dir(f.Path))+"."+m[1]] = true
		}
	}
	named := regexp.MustCompile(`\b[a-z0-9]+\.Test\w+`)
	rows := 0
	for line := range strings.Lines(string(table)) {
		if !regexp.MustCompile(`^\| \d+ `).MatchString(line) {
			continue
		}
		rows++
		tests := named.FindAllString(line, -1)
		if len(tests) == 0 && !strings.Contains(line, "none yet") {
			t.Errorf("no test and no blank: %s", line)
		}
		for _, name := range tests {
			if !have[name] {
				t.Errorf("there is no %s: %s", name, line)
			}
		}
	}
	if rows != want {
		t.Errorf("%d rows, want %d", rows, want)
	}
}
