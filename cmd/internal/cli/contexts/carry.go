package contexts

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/docker/cli/cli/context/docker"
	"github.com/docker/cli/cli/context/store"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
	"github.com/minictl/minictl/cmd/internal/cli/dial"
)

func newExportCommand(c *console.Console) *cobra.Command {
	return &cobra.Command{
		Use:                   "export CONTEXT [FILE|-]",
		Short:                 "Export a context to a tar archive FILE or a tar stream on STDOUT.",
		Example:               "  minictl context export lab\n  minictl context export lab - | ssh host2 minictl context import lab -",
		Args:                  console.Between(1, 2),
		ValidArgsFunction:     complete.First(1, names(false)),
		DisableFlagsInUseLine: true,
		RunE: func(_ *cobra.Command, args []string) error {
			file := args[0] + ".dockercontext"
			if len(args) > 1 {
				file = args[1]
			}
			return runExport(c, args[0], file)
		},
	}
}

// runExport writes a file that is not there yet and that only the user may read: it can hold a key.
func runExport(c *console.Console, name, file string) (err error) {
	s := dial.Contexts()
	if _, err := s.GetMetadata(name); err != nil {
		return err
	}
	archive := store.Export(name, s)
	defer archive.Close()
	if file == "-" {
		if c.Out.IsTerminal() {
			return errors.New("cowardly refusing to export to a terminal, specify a file path")
		}
		_, err := io.Copy(c.Out, archive)
		return err
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("export context %q: %w", name, err)
	}
	_, err = io.Copy(f, archive)
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("export context %q: %w", name, err), os.Remove(file))
	}
	fmt.Fprintf(c.Err, "Written file %q\n", file)
	return nil
}

func newImportCommand(c *console.Console) *cobra.Command {
	return &cobra.Command{
		Use:     "import CONTEXT FILE|-",
		Short:   "Import a context from a tar or zip file",
		Example: "  minictl context import lab lab.dockercontext",
		Args:    console.Exactly(2),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		DisableFlagsInUseLine: true,
		RunE: func(_ *cobra.Command, args []string) error {
			var in io.Reader = c.In
			if args[1] != "-" {
				f, err := os.Open(args[1])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			s := dial.Contexts()
			if err := free(s, args[0]); err != nil {
				return fmt.Errorf("import context %q: %w", args[0], err)
			}
			if err := store.Import(args[0], s, in); err != nil {
				return fmt.Errorf("import context %q: %w", args[0], err)
			}
			fmt.Fprintln(c.Out, args[0])
			fmt.Fprintf(c.Err, "Successfully imported context %q\n", args[0])
			return nil
		},
	}
}

func newUpdateCommand(c *console.Console) *cobra.Command {
	var o createOptions
	cmd := &cobra.Command{
		Use:                   "update [OPTIONS] CONTEXT",
		Short:                 "Update a context",
		Long:                  "Update a context. --docker takes what it takes for create, and replaces what was there.",
		Example:               "  minictl context update lab --description 'the lab' --docker host=ssh://root@host2",
		Args:                  console.Exactly(1),
		ValidArgsFunction:     complete.First(1, names(false)),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := runUpdate(c, args[0], o, cmd.Flags().Changed("description")); err != nil {
				return fmt.Errorf("update context %q: %w", args[0], err)
			}
			fmt.Fprintln(c.Out, args[0])
			fmt.Fprintf(c.Err, "Successfully updated context %q\n", args[0])
			return nil
		},
	}
	cmd.Flags().StringVar(&o.description, "description", "", "Description of the context")
	cmd.Flags().StringToStringVar(&o.endpoint, "docker", nil, "set the docker endpoint")
	return cmd
}

func runUpdate(c *console.Console, name string, o createOptions, describe bool) error {
	s := dial.Contexts()
	meta, err := s.GetMetadata(name)
	if err != nil {
		return err
	}
	if describe {
		about, ok := meta.Metadata.(dial.Meta)
		if !ok {
			about = dial.Meta{}
		}
		about["Description"] = o.description
		meta.Metadata = about
	}
	if len(o.endpoint) == 0 {
		return s.CreateOrUpdate(meta)
	}
	ep, err := o.find(c, s)
	if err != nil {
		return err
	}
	if err := dial.CheckEndpoint(ep); err != nil {
		return err
	}
	meta.Endpoints = map[string]any{docker.DockerEndpoint: ep.EndpointMeta}
	if err := s.CreateOrUpdate(meta); err != nil {
		return err
	}
	return s.ResetEndpointTLSMaterial(name, docker.DockerEndpoint, ep.TLSData.ToStoreTLSData())
}
