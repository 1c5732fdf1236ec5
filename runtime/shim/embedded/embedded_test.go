package embedded

import (
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"testing"
)

func TestUnpack(t *testing.T) {
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	w.Write([]byte("#!/bin/sh\n"))
	w.Close()
	dir := t.TempDir()
	path, err := unpack(gz.Bytes(), dir, "shim", 0o700)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(path); string(b) != "#!/bin/sh\n" {
		t.Errorf("content %q", b)
	}
	if fi, _ := os.Lstat(path); fi.Mode() != 0o700 {
		t.Errorf("mode %v", fi.Mode())
	}
	if again, err := unpack(gz.Bytes(), dir, "shim", 0o700); again != path || err != nil {
		t.Errorf("again: %s, %v", again, err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("files %v", left)
	}
	if _, err := unpack([]byte("no gzip"), dir, "shim", 0o700); err == nil {
		t.Error("rubbish unpacked")
	}
}

func TestMissing(t *testing.T) {
	if _, err := files.ReadFile("shim.gz"); err == nil {
		t.Skip("this tree has a shim")
	}
	if _, err := Unpack(t.TempDir()); !errors.Is(err, ErrMissing) {
		t.Errorf("got %v", err)
	}
}
