package cli_test

import (
	"net/http"
	"testing"

	"github.com/minictl/minictl/cmd/internal/cli/clitest"
)

// TestVolumeCommands prints what docker prints.
func TestVolumeCommands(t *testing.T) {
	d := clitest.Start(t)
	d.Handle("POST /volumes/create", clitest.JSON(201, `{"Name":"data","Driver":"local"}`))
	d.Handle("GET /volumes/data", clitest.JSON(200, `{"Name":"data","Driver":"local","Mountpoint":"/v/data/_data","Labels":null}`))
	d.Handle("GET /volumes/nope", clitest.Fail(404, "get nope: no such volume"))
	d.Handle("DELETE /volumes/data", clitest.Empty(204))
	d.Handle("DELETE /volumes/used", clitest.Fail(409, "remove used: volume is in use - [c1]"))
	d.Handle("POST /volumes/prune", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("filters") == "" {
			clitest.JSON(200, `{"VolumesDeleted":null,"SpaceReclaimed":0}`)(w, r)
			return
		}
		clitest.JSON(200, `{"VolumesDeleted":["a","b"],"SpaceReclaimed":1500}`)(w, r)
	})
	for _, c := range []struct {
		in   string
		args []string
		code int
		out  string
		err  string
	}{
		{"", []string{"volume", "create", "data"}, 0, "data\n", ""},
		{"", []string{"volume", "create", "--name", "x", "data"}, 1, "", "minictl: conflicting options: cannot specify a volume-name through both --name and as a positional arg\n"},
		{"", []string{"volume", "inspect", "-f", "{{.Mountpoint}}", "data"}, 0, "/v/data/_data\n", ""},
		{"", []string{"inspect", "--type", "volume", "-f", "{{.Name}}", "data"}, 0, "data\n", ""},
		{"", []string{"volume", "inspect", "-f", "{{.Name}}", "nope"}, 1, "\n", "minictl: Error response from daemon: get nope: no such volume\n"},
		{"", []string{"volume", "rm", "data"}, 0, "data\n", ""},
		{"", []string{"volume", "rm", "used"}, 1, "", "minictl: Error response from daemon: remove used: volume is in use - [c1]\n"},
		{"", []string{"volume", "rm", "used", "data"}, 1, "data\n", "Error response from daemon: remove used: volume is in use - [c1]\nminictl: failed to remove volumes: used\n"},
		{"", []string{"volume", "prune", "-f"}, 0, "Total reclaimed space: 0B\n", ""},
		{"", []string{"volume", "prune", "-af"}, 0, "Deleted Volumes:\na\nb\n\nTotal reclaimed space: 1.5kB\n", ""},
		{"n\n", []string{"volume", "prune"}, 0, "WARNING! This will remove anonymous local volumes not used by at least one container.\nAre you sure you want to continue? [y/N] ", ""},
		{"y\n", []string{"volume", "prune", "-a"}, 0, "WARNING! This will remove all local volumes not used by at least one container.\nAre you sure you want to continue? [y/N] Deleted Volumes:\na\nb\n\nTotal reclaimed space: 1.5kB\n", ""},
		{"", []string{"volume", "prune", "-af", "--filter", "all=1"}, 1, "", "minictl: conflicting options: cannot specify both --all and --filter all=1\n"},
	} {
		r := clitest.RunInput(t, d, c.in, c.args...)
		if r.Code != c.code || r.Out != c.out || r.Err != c.err {
			t.Errorf("%v: %+v\nwant %d %q %q", c.args, r, c.code, c.out, c.err)
		}
	}
}
