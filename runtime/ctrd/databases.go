package ctrd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
)

// index is a database of containerd's and the folders that it is the index of. Where it is missing or empty containerd
// begins a new one, takes all there is for rubbish, and removes it.
type index struct {
	file string
	of   []string
}

// Paths below Config.Root.
const (
	layersOverlay = "io.containerd.snapshotter.v1.overlayfs"
	layersNative  = "io.containerd.snapshotter.v1.native"
	blobsDir      = "io.containerd.content.v1.content/blobs"
)

func indices() []index {
	blobs := blobsDir + "/sha256"
	return []index{
		{"io.containerd.metadata.v1.bolt/meta.db", []string{blobs, layersOverlay + "/snapshots", layersNative + "/snapshots"}},
		{layersOverlay + "/metadata.db", []string{layersOverlay + "/snapshots"}},
		{layersNative + "/metadata.db", []string{layersNative + "/snapshots"}},
	}
}

// checkDatabases looks at containerd's databases before containerd does, which panics on what it cannot make sense of,
// and removes what a lost one knew of. check reads one through; nil: none is.
func checkDatabases(root string, check func(path string) error) error {
	for _, i := range indices() {
		file := filepath.Join(root, i.file)
		st, err := os.Stat(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil && st.Size() > 0 {
			continue
		}
		what := errors.New("it is missing")
		if err == nil {
			what = errors.New("it is empty")
		}
		for _, dir := range i.of {
			if kept, _ := os.ReadDir(filepath.Join(root, dir)); len(kept) > 0 {
				return damaged(root, file, fmt.Errorf("%w, and there is something in %s", what, filepath.Join(root, dir)))
			}
		}
	}
	if check == nil {
		return nil
	}
	files, err := filepath.Glob(filepath.Join(root, "io.containerd.*", "*.db"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := check(file); err != nil {
			return damaged(root, file, err)
		}
	}
	return nil
}

func damaged(root, file string, cause error) error {
	return fmt.Errorf("the file %s is damaged (%w). It says what images and layers there are: put it back from a backup. Or start without: "+
		"minictl daemon --cleanup --force && mv %[3]s %[3]s.damaged; then containers that run are ended, all are listed still and have to be made "+
		"again, images have to be pulled or loaded again, and what containers have written is below %[3]s.damaged/%[4]s/snapshots: %[5]w", file, cause, root, layersOverlay, errdefs.ErrDataLoss)
}
