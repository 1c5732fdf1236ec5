package tree

import (
	"archive/tar"
	"errors"
	"io"
	"path"
	"strings"
)

// Rename gives the archive with another name for its top entry and so for all below it; hard links within are renamed
// too. What is not below from stays as it is. The reader must be closed.
func Rename(in io.Reader, from, to string) io.ReadCloser {
	r, w := io.Pipe()
	go func() { _ = w.CloseWithError(rename(in, w, from, to)) }()
	return r
}

func rename(in io.Reader, out io.Writer, from, to string) error {
	tr, tw := tar.NewReader(in), tar.NewWriter(out)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return tw.Close()
		}
		if err != nil {
			return bad(err)
		}
		h.Name = renamed(h.Name, from, to)
		if h.Typeflag == tar.TypeLink {
			h.Linkname = renamed(h.Linkname, from, to)
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(tw, tr); err != nil {
			return err
		}
	}
}

// renamed keeps the slash at a folder's end. In an archive of "." or "/" everything is below the top.
func renamed(name, from, to string) string {
	clean, top := path.Clean("/"+name), path.Clean("/"+from)
	rest, ok := strings.CutPrefix(clean, strings.TrimSuffix(top, "/")+"/")
	switch {
	case clean == top:
		rest = ""
	case !ok:
		return name
	}
	out := path.Join(to, rest)
	if strings.HasSuffix(name, "/") {
		out += "/"
	}
	return out
}
