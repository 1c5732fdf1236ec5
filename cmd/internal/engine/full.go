package engine

import (
	"errors"
	"fmt"
	"strings"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"
)

// Explain tells whoever asked for something that failed for want of room where there is none, and how to make some. Other
// programs' errors, and those that came through containerd, have nothing left but their text.
func (e *Engine) Explain(err error) string {
	full := func(no unix.Errno) bool { return errors.Is(err, no) || strings.Contains(err.Error(), no.Error()) }
	if !full(unix.ENOSPC) && !full(unix.EDQUOT) {
		return ""
	}
	var st unix.Statfs_t
	if unix.Statfs(e.cfg.Root, &st) != nil {
		return ""
	}
	return fullWords(e.cfg.Root, st)
}

// Less than this much is nothing: what is asked for needs more, and what runs takes it.
const (
	noBytes = 1 << 20
	noFiles = 32
)

// fullWords describe a file system that is full; "" for one that is not: then it is another that was meant.
func fullWords(root string, st unix.Statfs_t) string {
	size := uint64(st.Bsize) //nolint:gosec // the kernel's own block size
	var what string
	switch {
	case st.Bavail*size < noBytes:
		what = fmt.Sprintf("%s of %s are free", units.BytesSize(float64(st.Bavail*size)), units.BytesSize(float64(st.Blocks*size)))
	case st.Files > 0 && st.Ffree < noFiles:
		what = fmt.Sprintf("it holds %d files and has room for %d more", st.Files-st.Ffree, st.Ffree)
	default:
		return ""
	}
	return fmt.Sprintf("the file system of %s is full (%s); make room there: \"minictl system df\" tells what takes it, \"minictl system prune\" "+
		"removes what nobody uses. What runs goes on, and nothing has to be restarted", root, what)
}
