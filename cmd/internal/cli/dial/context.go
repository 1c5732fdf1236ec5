package dial

import (
	"cmp"
	"fmt"
	"os"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/context/docker"
	"github.com/docker/cli/cli/context/store"
)

// DefaultContext is the name for no context: what the flags, the environment and this machine's socket say.
const DefaultContext = "default"

// Our part of docker's configuration file, where docker leaves room for other programs: which context is ours. Docker's
// own currentContext means the engine docker is to talk to.
const (
	plugin        = "minictl"
	currentOption = "context"
)

// Meta is what a context says about itself: docker's Description, and whatever else is kept there.
type Meta = map[string]any

// Contexts is docker's own context store, so that what either program makes the other finds.
func Contexts() *store.ContextStore {
	return store.New(config.ContextStoreDir(), store.NewConfig(func() any { return &Meta{} },
		store.EndpointTypeGetter(docker.DockerEndpoint, func() any { return &docker.EndpointMeta{} })))
}

// ContextName is the context in force.
func (o *Options) ContextName(cfg *configfile.ConfigFile) string {
	switch {
	case o.Host != "":
		return DefaultContext
	case o.Context != "":
		return o.Context
	case os.Getenv(HostEnv) != "":
		return DefaultContext
	}
	chosen, _ := cfg.PluginConfig(plugin, currentOption)
	return cmp.Or(os.Getenv(ContextEnv), chosen, DefaultContext)
}

// UseContext makes name the context of all later commands.
func UseContext(cfg *configfile.ConfigFile, name string) error {
	if name == DefaultContext {
		name = ""
	}
	if was, _ := cfg.PluginConfig(plugin, currentOption); was == name {
		return nil
	}
	cfg.SetPluginConfig(plugin, currentOption, name)
	return cfg.Save()
}

// fromContext reads a context's endpoint with its certificates.
func fromContext(name string) (Target, error) {
	s := Contexts()
	meta, err := s.GetMetadata(name)
	if err != nil {
		return Target{}, fmt.Errorf("%w: see 'minictl context ls'", err)
	}
	em, err := docker.EndpointFromContext(meta)
	if err != nil {
		return Target{}, fmt.Errorf("context %q: %w", name, err)
	}
	ep, err := docker.WithTLSData(s, name, em)
	if err != nil {
		return Target{}, fmt.Errorf("context %q: %w", name, err)
	}
	ep.Host = cmp.Or(ep.Host, DefaultHost)
	t, err := to(ep)
	if err != nil {
		return t, fmt.Errorf("context %q: %w", name, err)
	}
	return t, nil
}

// CheckEndpoint refuses an endpoint that no client can be made for.
func CheckEndpoint(ep docker.Endpoint) error {
	_, err := to(ep)
	return err
}
