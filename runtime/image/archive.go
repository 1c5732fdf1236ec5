package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/containerd/errdefs"
)

// CopyArchive copies an image archive (docker save's, or an OCI layout; a plain tar), refusing at once one whose entries
// lead out of it: absolute names, "..", links to such. Nothing unpacks these entries as files, but an archive that tries
// is hostile or broken, and the next reader of it may be less careful.
func CopyArchive(w io.Writer, r io.Reader) error {
	tr, tw := tar.NewReader(r), tar.NewWriter(w)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return tw.Close()
		}
		if err != nil {
			return fmt.Errorf("read image archive: %w: %w", err, errdefs.ErrInvalidArgument)
		}
		if err := checkEntry(h); err != nil {
			return err
		}
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("copy image archive: %s: %w", h.Name, err)
		}
		if _, err := io.Copy(tw, tr); err != nil {
			return fmt.Errorf("copy image archive: %s: %w", h.Name, err)
		}
	}
}

func checkEntry(h *tar.Header) error {
	if !inside(h.Name) {
		return fmt.Errorf("image archive: entry %q leads out of the archive: %w", h.Name, errdefs.ErrInvalidArgument)
	}
	// A sparse entry of a few bytes can stand for terabytes of zeros; docker save and builders write none.
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return fmt.Errorf("image archive: entry %q is sparse: %w", h.Name, errdefs.ErrInvalidArgument)
		}
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir, tar.TypeXGlobalHeader:
		return nil
	case tar.TypeSymlink: // relative to its own folder; old versions of docker save link equal layers
		if path.IsAbs(h.Linkname) || !inside(path.Join(path.Dir(h.Name), h.Linkname)) {
			return fmt.Errorf("image archive: link %q to %q leads out of the archive: %w", h.Name, h.Linkname, errdefs.ErrInvalidArgument)
		}
		return nil
	case tar.TypeLink: // relative to the archive
		if !inside(h.Linkname) {
			return fmt.Errorf("image archive: link %q to %q leads out of the archive: %w", h.Name, h.Linkname, errdefs.ErrInvalidArgument)
		}
		return nil
	}
	return fmt.Errorf("image archive: entry %q is neither file, folder nor link: %w", h.Name, errdefs.ErrInvalidArgument)
}

func inside(name string) bool {
	clean := path.Clean(name)
	return !path.IsAbs(clean) && clean != ".." && !strings.HasPrefix(clean, "../")
}
