package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
	"github.com/minictl/minictl/runtime/tree"
)

// cpOptions are cp's flags.
type cpOptions struct {
	archive, follow, quiet bool
}

func newCpCommand(c *console.Console) *cobra.Command {
	var o cpOptions
	cmd := &cobra.Command{
		Use:   "cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n  minictl cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
		Short: "Copy files/folders between a container and the local filesystem",
		Long: `Copy files/folders between a container and the local filesystem

Use '-' as the source to read a tar archive from stdin and extract it to a folder of the container.
Use '-' as the destination to write the container's files to stdout as a tar archive.`,
		Example:               "  minictl cp web1:/etc/hosts .\n  minictl cp site/. web1:/usr/local/apache2/htdocs",
		Args:                  console.Exactly(2),
		ValidArgsFunction:     complete.First(2, complete.CopyPath(c)),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("quiet") {
				o.quiet = !c.Out.IsTerminal()
			}
			return runCp(cmd.Context(), c, args[0], args[1], o)
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.archive, "archive", "a", false, "Archive mode (copy all uid/gid information)")
	fs.BoolVarP(&o.follow, "follow-link", "L", false, "Always follow symbol link in SRC_PATH")
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached")
	return cmd
}

// cpClient is what cp needs of the daemon.
type cpClient interface {
	ContainerStatPath(ctx context.Context, id string, o client.ContainerStatPathOptions) (client.ContainerStatPathResult, error)
	CopyFromContainer(ctx context.Context, id string, o client.CopyFromContainerOptions) (client.CopyFromContainerResult, error)
	CopyToContainer(ctx context.Context, id string, o client.CopyToContainerOptions) (client.CopyToContainerResult, error)
}

// copier is one cp.
type copier struct {
	cpOptions
	cl cpClient
	c  *console.Console
}

func runCp(ctx context.Context, c *console.Console, from, to string, o cpOptions) error {
	source, sourcePath := splitPath(from)
	target, targetPath := splitPath(to)
	switch {
	case source != "" && target != "":
		return errors.New("copying between containers is not supported")
	case source == "" && target == "":
		return errors.New("must specify at least one container source")
	case sourcePath == "" || targetPath == "":
		return errors.New("source and destination can not be empty")
	}
	cl, err := c.Client()
	if err != nil {
		return err
	}
	cp := &copier{o, cl, c}
	if source != "" {
		return cp.out(ctx, source, sourcePath, targetPath)
	}
	return cp.in(ctx, sourcePath, target, targetPath)
}

// splitPath tells CONTAINER:PATH from a local path, which is one that is absolute, begins with a dot or has no colon.
func splitPath(arg string) (container, p string) {
	name, rest, found := strings.Cut(arg, ":")
	if filepath.IsAbs(arg) || !found || strings.HasPrefix(name, ".") {
		return "", arg
	}
	return name, rest
}

// errNoFolder and errFolder are docker's words.
var (
	errNoFolder = errors.New("no such directory")
	errFolder   = errors.New("cannot copy directory")
)

// landing says where a copy goes and what it is called there.
type landing struct {
	folder string
	name   string // of the copied path; "." for a folder's content alone
}

// place is cp's rule: into a folder that is there, else under the destination's own name.
func place(name string, isFolder bool, dest string, exists, destIsFolder bool) (landing, error) {
	switch {
	case exists && destIsFolder:
		return landing{dest, name}, nil
	case exists && isFolder:
		return landing{}, errFolder
	case !exists && !isFolder && assertsFolder(dest):
		return landing{}, errNoFolder
	}
	clean := path.Clean(dest)
	return landing{path.Dir(clean), path.Base(clean)}, nil
}

func assertsFolder(p string) bool {
	return strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.") || p == "."
}

// out copies from a container.
func (cp *copier) out(ctx context.Context, id, source, dest string) error {
	name := tree.ArchiveName(tree.Clean(source))
	if cp.follow {
		st, err := cp.cl.ContainerStatPath(ctx, id, client.ContainerStatPathOptions{Path: source})
		if err == nil && st.Stat.Mode&fs.ModeSymlink != 0 {
			source = st.Stat.LinkTarget
		}
	}
	res, err := cp.cl.CopyFromContainer(ctx, id, client.CopyFromContainerOptions{SourcePath: source})
	if err != nil {
		return err
	}
	defer res.Content.Close()
	if dest == "-" {
		if cp.c.Out.IsTerminal() {
			return errors.New("refusing to write an archive to a terminal: redirect it, or name a folder")
		}
		_, err := io.Copy(cp.c.Out, res.Content)
		return err
	}
	real, exists, isFolder, err := localDest(dest)
	if err != nil {
		return err
	}
	to, err := place(name, res.Stat.Mode.IsDir(), real, exists, isFolder)
	if err != nil {
		return fmt.Errorf("%s: %w", dest, err)
	}
	counted := &byteCount{r: res.Content}
	if err := unpackLocal(ctx, counted, tree.ArchiveName(tree.Clean(source)), to); err != nil {
		return err
	}
	cp.done(counted.n, dest)
	return nil
}

// in copies to a container.
func (cp *copier) in(ctx context.Context, source, id, dest string) error {
	real, exists, isFolder, err := cp.containerDest(ctx, id, dest)
	if err != nil {
		return err
	}
	if source == "-" {
		if !isFolder {
			return fmt.Errorf("destination \"%s:%s\" must be a directory", id, dest)
		}
		return cp.put(ctx, id, real, cp.c.In)
	}
	src, err := openLocal(source, cp.follow)
	if err != nil {
		return err
	}
	defer src.root.Close()
	to, err := place(src.name, src.isFolder, real, exists, isFolder)
	if err != nil {
		return fmt.Errorf("%s:%s: %w", id, dest, err)
	}
	archive, failed := src.pack(ctx, to.name)
	defer archive.Close()
	counted := &byteCount{r: archive}
	if err := cp.put(ctx, id, to.folder, counted); err != nil {
		if why := failed(); why != nil {
			return why // the reason why the archive ended before its end
		}
		return err
	}
	cp.done(counted.n, id+":"+dest)
	return nil
}

func (cp *copier) put(ctx context.Context, id, folder string, content io.Reader) error {
	_, err := cp.cl.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: folder, Content: content, CopyUIDGID: cp.archive})
	return err
}

// containerDest finds what a destination is, and where it is if it is a link. One that cannot be asked about is taken
// for new: the copy itself will say what is wrong.
func (cp *copier) containerDest(ctx context.Context, id, dest string) (real string, exists, isFolder bool, err error) {
	st, err := cp.cl.ContainerStatPath(ctx, id, client.ContainerStatPathOptions{Path: dest})
	if err != nil {
		return dest, false, false, nil
	}
	if st.Stat.Mode&fs.ModeSymlink != 0 {
		dest = st.Stat.LinkTarget
		if st, err = cp.cl.ContainerStatPath(ctx, id, client.ContainerStatPathOptions{Path: dest}); err != nil {
			return dest, false, false, nil
		}
	}
	if m := st.Stat.Mode; !m.IsDir() && !m.IsRegular() {
		return "", false, false, fmt.Errorf("destination \"%s:%s\" must be a directory or a regular file", id, dest)
	}
	return dest, true, st.Stat.Mode.IsDir(), nil
}

func (cp *copier) done(n int64, dest string) {
	if !cp.quiet {
		fmt.Fprintf(cp.c.Err, "Successfully copied %s to %s\n", units.HumanSize(float64(n)), dest)
	}
}

// byteCount counts what is read through it.
type byteCount struct {
	r io.Reader
	n int64
}

// Read implements io.Reader.
func (b *byteCount) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.n += int64(n)
	return n, err
}
