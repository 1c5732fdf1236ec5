package contexts

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/containerd/errdefs"
	clicontext "github.com/docker/cli/cli/context"
	"github.com/docker/cli/cli/context/docker"
	"github.com/docker/cli/cli/context/store"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
	"github.com/minictl/minictl/cmd/internal/cli/dial"
	"github.com/minictl/minictl/cmd/internal/cli/inspect"
)

type createOptions struct {
	description, from string
	endpoint          map[string]string
}

func newCreateCommand(c *console.Console) *cobra.Command {
	var o createOptions
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] CONTEXT",
		Short: "Create a context",
		Long: "Create a context. --docker takes host (unix://, tcp:// or ssh://), ca, cert and key (files, for TLS),\n" +
			"skip-tls-verify and from (another context to copy the endpoint of).",
		Example: `  minictl context create lab --docker host=ssh://root@host1
  minictl context create far --docker host=tcp://10.0.0.2:2376,ca=ca.pem,cert=cert.pem,key=key.pem`,
		Args:                  console.Exactly(1),
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if err := runCreate(c, args[0], o); err != nil {
				return fmt.Errorf("create context %q: %w", args[0], err)
			}
			fmt.Fprintln(c.Out, args[0])
			fmt.Fprintf(c.Err, "Successfully created context %q\n", args[0])
			return nil
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&o.description, "description", "", "Description of the context")
	fs.StringToStringVar(&o.endpoint, "docker", nil, "set the docker endpoint")
	fs.StringVar(&o.from, "from", "", "create context from a named context")
	_ = cmd.RegisterFlagCompletionFunc("from", names(false))
	return cmd
}

func runCreate(c *console.Console, name string, o createOptions) error {
	s := dial.Contexts()
	if err := free(s, name); err != nil {
		return err
	}
	if o.from != "" && len(o.endpoint) > 0 {
		return errors.New("cannot use --docker flag when --from is set")
	}
	ep, err := o.find(c, s)
	if err != nil {
		return err
	}
	if err := dial.CheckEndpoint(ep); err != nil {
		return err
	}
	meta := dial.Meta{}
	if o.description != "" {
		meta["Description"] = o.description
	}
	if err := s.CreateOrUpdate(store.Metadata{Name: name, Metadata: meta,
		Endpoints: map[string]any{docker.DockerEndpoint: ep.EndpointMeta}}); err != nil {
		return err
	}
	return s.ResetEndpointTLSMaterial(name, docker.DockerEndpoint, ep.TLSData.ToStoreTLSData())
}

// free refuses a name that is none, or that a context has.
func free(s *store.ContextStore, name string) error {
	if err := store.ValidateContextName(name); err != nil {
		return err
	}
	_, err := s.GetMetadata(name)
	switch {
	case err == nil:
		return errdefs.ErrAlreadyExists
	case errdefs.IsNotFound(err):
		return nil
	}
	return err
}

// find is where the endpoint comes from: what --docker says, the context of --from, or else the one in force.
func (o *createOptions) find(c *console.Console, s *store.ContextStore) (docker.Endpoint, error) {
	from := o.from
	if from == "" && len(o.endpoint) == 0 {
		from = c.Daemon.ContextName(c.Config())
	}
	if f, ok := o.endpoint["from"]; ok {
		from = f
	}
	switch from {
	case "":
		return parseEndpoint(o.endpoint)
	case dial.DefaultContext:
		return docker.Endpoint{EndpointMeta: docker.EndpointMeta{Host: c.Daemon.DefaultHost()}}, nil
	}
	meta, err := s.GetMetadata(from)
	if err != nil {
		return docker.Endpoint{}, err
	}
	em, err := docker.EndpointFromContext(meta)
	if err != nil {
		return docker.Endpoint{}, err
	}
	return docker.WithTLSData(s, from, em)
}

func parseEndpoint(kv map[string]string) (docker.Endpoint, error) {
	var ep docker.Endpoint
	for k, v := range kv {
		switch k {
		case "host":
			ep.Host = v
		case "skip-tls-verify":
			skip, err := strconv.ParseBool(v)
			if err != nil {
				return ep, fmt.Errorf("skip-tls-verify: parsing %q: want true or false", v)
			}
			ep.SkipTLSVerify = skip
		case "ca", "cert", "key":
		default:
			return ep, fmt.Errorf("unrecognized config key: %s", k)
		}
	}
	if ep.Host == "" {
		return ep, errors.New("--docker names no host: for example --docker host=ssh://root@host1")
	}
	var err error
	ep.TLSData, err = clicontext.TLSDataFromFiles(kv["ca"], kv["cert"], kv["key"])
	return ep, err
}

// description is what inspect shows; the fields are docker's.
type description struct {
	store.Metadata
	TLSMaterial map[string]store.EndpointFiles
	Storage     store.StorageInfo
}

func newInspectCommand(c *console.Console) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:                   "inspect [OPTIONS] [CONTEXT] [CONTEXT...]",
		Short:                 "Display detailed information on one or more contexts",
		Example:               "  minictl context inspect lab -f '{{.Endpoints.docker.Host}}'",
		ValidArgsFunction:     names(false),
		DisableFlagsInUseLine: true,
		RunE: func(_ *cobra.Command, refs []string) error {
			if len(refs) == 0 {
				refs = []string{c.Daemon.ContextName(c.Config())}
			}
			return inspect.Write(c.Out, refs, format, get(c))
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", inspect.FormatHelp("{{.Name}}"))
	return cmd
}

func get(c *console.Console) inspect.Getter {
	s := dial.Contexts()
	return func(ref string) (any, []byte, error) {
		d := description{TLSMaterial: map[string]store.EndpointFiles{}}
		if ref == dial.DefaultContext {
			d.Metadata = store.Metadata{Name: ref, Metadata: dial.Meta{}, Endpoints: map[string]any{
				docker.DockerEndpoint: docker.EndpointMeta{Host: c.Daemon.DefaultHost()}}}
			d.Storage = store.StorageInfo{MetadataPath: "<IN MEMORY>", TLSPath: "<IN MEMORY>"}
		} else {
			var err error
			if d.Metadata, err = s.GetMetadata(ref); err != nil {
				return nil, nil, err
			}
			if d.TLSMaterial, err = s.ListTLSFiles(ref); err != nil {
				return nil, nil, err
			}
			d.Storage = s.GetStorageInfo(ref)
		}
		raw, err := json.Marshal(d)
		return d, raw, err
	}
}
