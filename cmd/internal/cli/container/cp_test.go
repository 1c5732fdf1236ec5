package container

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestSplitPath(t *testing.T) {
	for in, want := range map[string][2]string{
		"web:/x": {"web", "/x"}, "web:": {"web", ""}, "/a:b": {"", "/a:b"}, "./a:b": {"", "./a:b"}, "../a:b": {"", "../a:b"}, "x": {"", "x"}, "-": {"", "-"},
		"web:/a:b": {"web", "/a:b"}, "": {"", ""},
	} {
		if c, p := splitPath(in); c != want[0] || p != want[1] {
			t.Errorf("%q: %q %q", in, c, p)
		}
	}
}

// docker's table of where a copy goes.
func TestPlace(t *testing.T) {
	for _, c := range []struct {
		what                 string
		name                 string
		folder               bool
		dest                 string
		exists, destIsFolder bool
		want                 landing
		err                  error
	}{
		{"file to a new name", "a", false, "/d/b", false, false, landing{"/d", "b"}, nil},
		{"file to a folder that is not there", "a", false, "/d/b/", false, false, landing{}, errNoFolder},
		{"file over a file", "a", false, "/d/b", true, false, landing{"/d", "b"}, nil},
		{"file into a folder", "a", false, "/d/b", true, true, landing{"/d/b", "a"}, nil},
		{"folder to a new name", "a", true, "/d/b", false, false, landing{"/d", "b"}, nil},
		{"folder to a new name with a slash", "a", true, "/d/b/", false, false, landing{"/d", "b"}, nil},
		{"folder over a file", "a", true, "/d/b", true, false, landing{}, errFolder},
		{"folder into a folder", "a", true, "/d/b", true, true, landing{"/d/b", "a"}, nil},
		{"content to a new name", ".", true, "/d/b", false, false, landing{"/d", "b"}, nil},
		{"content into a folder", ".", true, "/d/b", true, true, landing{"/d/b", "."}, nil},
		{"to the root", "a", true, "/", true, true, landing{"/", "a"}, nil},
	} {
		got, err := place(c.name, c.folder, c.dest, c.exists, c.destIsFolder)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %v, %v", c.what, got, err)
		}
	}
}

func TestLocalDest(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	link := func(to, name string) {
		if err := os.Symlink(to, name); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir("folder", 0o755); err != nil {
		t.Fatal(err)
	}
	link("folder", "toFolder")
	link("missing", "dangling")
	link("loop", "loop")
	for _, c := range []struct {
		dest, real       string
		exists, isFolder bool
		fails            bool
	}{
		{"folder", "folder", true, true, false},
		{"toFolder", "folder", true, true, false},
		{"dangling", "missing", false, false, false},
		{"new", "new", false, false, false},
		{"none/new", "", false, false, true},
		{"loop", "", false, false, true},
	} {
		real, exists, isFolder, err := localDest(c.dest)
		if (err != nil) != c.fails || err == nil && (real != filepath.Join(dir, c.real) || exists != c.exists || isFolder != c.isFolder) {
			t.Errorf("%s: %s %v %v %v", c.dest, real, exists, isFolder, err)
		}
	}
}
