package buildkit

import (
	"context"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/session/auth"
	"google.golang.org/grpc"

	"github.com/minictl/minictl/runtime/image"
)

// store names this host's images among a build's sources.
const store = "minictl"

// attrs are a build's wishes in the words of BuildKit's Dockerfile frontend, without the context that is sent.
func attrs(o image.Build) map[string]string {
	a := map[string]string{}
	set := func(key, value string) {
		if value != "" {
			a[key] = value
		}
	}
	set("filename", o.Dockerfile)
	set("target", o.Target)
	set("platform", o.Platform)
	set("context", o.Remote)
	set("force-network-mode", o.Network)
	set("add-hosts", strings.Join(hosts(o.ExtraHosts), ","))
	set("ulimit", strings.Join(o.Ulimits, ","))
	set("cache-from", strings.Join(o.CacheFrom, ","))
	if o.ShmSize > 0 {
		a["shm-size"] = strconv.FormatInt(o.ShmSize, 10)
	}
	if o.NoCache {
		a["no-cache"] = ""
	}
	if o.Pull {
		a["image-resolve-mode"] = "pull"
	}
	for k, v := range o.Args {
		a["build-arg:"+k] = v
	}
	for k, v := range o.Labels {
		a["label:"+k] = v
	}
	return a
}

// hosts turns docker's name:address into the frontend's name=address; an IPv6 address has colons of its own.
func hosts(extra []string) []string {
	out := make([]string, 0, len(extra))
	for _, h := range extra {
		name, addr, _ := strings.Cut(h, ":")
		out = append(out, name+"="+addr)
	}
	return out
}

// localImages lets FROM and COPY --from find every image of this host under each of its names, for its own platform:
// docker build has always begun with an image that is here before it asks a registry. The frontend reads those that a
// Dockerfile names and no other.
func localImages(here []image.Image) map[string]string {
	out := map[string]string{}
	for _, i := range here {
		platform := platforms.FormatAll(platforms.Normalize(i.Config.Platform))
		for _, name := range append(append([]string{}, i.RepoTags...), i.RepoDigests...) {
			out["context:"+strings.TrimSuffix(name, ":latest")+"::"+platform] = "oci-layout://" + store + "@" + i.Target.Digest.String()
		}
	}
	return out
}

// credentials answers the builder, which asks the registries.
type credentials struct {
	auth.UnimplementedAuthServer
	by map[string]image.Auth
}

// Register implements session.Attachable.
func (c credentials) Register(s *grpc.Server) { auth.RegisterAuthServer(s, c) }

// Credentials implements auth.AuthServer; empty ones mean that there are none.
func (c credentials) Credentials(_ context.Context, req *auth.CredentialsRequest) (*auth.CredentialsResponse, error) {
	host := req.Host
	if host == "registry-1.docker.io" || host == "docker.io" {
		host = "https://index.docker.io/v1/" // the key docker login has always written
	}
	a := c.by[host]
	if a.IdentityToken != "" {
		return &auth.CredentialsResponse{Secret: a.IdentityToken}, nil
	}
	return &auth.CredentialsResponse{Username: a.Username, Secret: a.Password}, nil
}
