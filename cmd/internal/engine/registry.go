package engine

import (
	"context"
	"io"
	"net/netip"
	"slices"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	mobyimage "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/registry"

	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/runtime/image"
)

// ImageSave writes images as one archive, which docker load, our own load and OCI tools read.
func (e *Engine) ImageSave(ctx context.Context, refs []string, w io.Writer) error {
	if len(refs) == 0 {
		return invalid("no image to save: give names=")
	}
	if err := e.rt.Save(ctx, refs, w); err != nil {
		return err
	}
	for _, ref := range refs {
		e.imageEventOf(ctx, ref, ref, events.ActionSave)
	}
	return nil
}

// ImageHistory lists the steps an image was made in, the last one first. Steps that made no layer take no space.
func (e *Engine) ImageHistory(ctx context.Context, ref string) ([]mobyimage.HistoryResponseItem, error) {
	img, err := e.rt.Image(ctx, ref)
	if err != nil {
		return nil, err
	}
	layers, err := e.rt.Layers(ctx, img)
	if err != nil {
		return nil, err
	}
	return history(img, layers), nil
}

func history(img image.Image, layers []image.Layer) []mobyimage.HistoryResponseItem {
	out := []mobyimage.HistoryResponseItem{}
	for _, h := range img.Config.History {
		item := mobyimage.HistoryResponseItem{ID: "<missing>", CreatedBy: h.CreatedBy, Comment: h.Comment}
		if h.Created != nil {
			item.Created = h.Created.Unix()
		}
		if !h.EmptyLayer && len(layers) > 0 {
			item.Size = layers[0].Size
			layers = layers[1:]
		}
		out = append(out, item)
	}
	for _, l := range layers { // an image may have layers that its history does not mention
		out = append(out, mobyimage.HistoryResponseItem{ID: "<missing>", Size: l.Size})
	}
	slices.Reverse(out)
	if len(out) > 0 {
		out[0].ID, out[0].Tags = img.ID, img.RepoTags
	}
	return out
}

// ImagePush sends an image to its registry; an empty tag sends all of the repository's.
func (e *Engine) ImagePush(ctx context.Context, name, tag, registryAuth string, p api.Progress) error {
	auth, err := image.ParseAuth(registryAuth)
	if err != nil {
		return err
	}
	ref := name
	if tag != "" {
		ref += ":" + tag
	}
	if err := e.rt.Push(ctx, ref, tag == "", auth, p); err != nil {
		return err
	}
	e.imageEvent(image.Familiar(ref), image.Repository(ref), nil, events.ActionPush)
	return nil
}

// RegistryLogin asks a registry whether it takes a client's credentials. They are the client's to keep.
func (e *Engine) RegistryLogin(ctx context.Context, a registry.AuthConfig) (registry.AuthResponse, error) {
	token, err := e.rt.Login(ctx, image.Auth{
		Username: a.Username, Password: a.Password, ServerAddress: a.ServerAddress, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken,
	})
	if err != nil {
		return registry.AuthResponse{}, err
	}
	return registry.AuthResponse{Status: "Login Succeeded", IdentityToken: token}, nil
}

// DistributionInspect asks a registry what a name means there.
func (e *Engine) DistributionInspect(ctx context.Context, ref, registryAuth string) (registry.DistributionInspect, error) {
	auth, err := image.ParseAuth(registryAuth)
	if err != nil {
		return registry.DistributionInspect{}, err
	}
	if named, err := reference.ParseNormalizedNamed(ref); err != nil || named == nil {
		return registry.DistributionInspect{}, invalid("unknown image reference format: %s", ref)
	}
	d, platforms, err := e.rt.Distribution(ctx, ref, auth)
	return registry.DistributionInspect{Descriptor: d, Platforms: platforms}, err
}

// registryConfig is docker info's view of how registries are reached.
func registryConfig(r image.Registries) *registry.ServiceConfig {
	mirrors := append([]string{}, r.Mirrors...) // never null, as docker shows it
	s := &registry.ServiceConfig{
		InsecureRegistryCIDRs: []netip.Prefix{netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("127.0.0.0/8")},
		IndexConfigs:          map[string]*registry.IndexInfo{"docker.io": {Name: "docker.io", Mirrors: mirrors, Secure: true, Official: true}},
		Mirrors:               mirrors,
	}
	for _, e := range r.Insecure {
		if network, err := netip.ParsePrefix(e); err == nil {
			s.InsecureRegistryCIDRs = append(s.InsecureRegistryCIDRs, network)
			continue
		}
		s.IndexConfigs[e] = &registry.IndexInfo{Name: e, Mirrors: []string{}}
	}
	return s
}
