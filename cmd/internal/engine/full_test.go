package engine

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFullWords(t *testing.T) {
	for name, c := range map[string]struct {
		st   unix.Statfs_t
		want string
	}{
		"room":                  {unix.Statfs_t{Blocks: 1 << 20, Bavail: 1 << 10, Files: 1e6, Ffree: 1e3}, ""},
		"no bytes":              {unix.Statfs_t{Blocks: 1 << 20, Bavail: 1, Files: 1e6, Ffree: 1e3}, "/var/lib/x is full (4KiB of 4GiB are free)"},
		"no files":              {unix.Statfs_t{Blocks: 1 << 20, Bavail: 1 << 10, Files: 1e6, Ffree: 3}, "holds 999997 files and has room for 3 more"},
		"files are not counted": {unix.Statfs_t{Blocks: 1 << 20, Bavail: 1 << 10}, ""},
	} {
		c.st.Bsize = 4096
		if got := fullWords("/var/lib/x", c.st); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %s", name, got)
		}
	}
}
