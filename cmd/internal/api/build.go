package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"

	"github.com/minictl/minictl/runtime/image"
)

// BuildBackend is what the build route needs.
type BuildBackend interface {
	// ImageBuild reads the context, a tar, and gives the new image's ID.
	ImageBuild(ctx context.Context, o image.Build, tar io.Reader, p Progress) (id string, err error)
}

// buildRoutes are the first generation of docker's builder; the second speaks to /session and /grpc, see unsupported.
func (s *server) buildRoutes() []route {
	return []route{{"POST", "/build", s.build}}
}

// build answers in docker's order: the builder's lines, the ID for programs, the ID and the names for people. Quiet is
// the ID alone.
func (s *server) build(w http.ResponseWriter, c *call) error {
	o, err := buildOptions(c)
	if err != nil {
		return err
	}
	p := newProgress(w, s.message)
	var lines Progress = p
	quiet := c.flag("q")
	if quiet {
		lines = noProgress{}
	}
	id, err := s.Build.ImageBuild(c.Context(), o, c.Body, lines)
	switch {
	case err != nil:
	case quiet:
		p.Stream(id + "\n")
	default:
		p.write(progressLine{Aux: build.Result{ID: id}})
		p.Stream("Successfully built " + image.ShortID(id) + "\n")
		for _, t := range o.Tags {
			p.Stream("Successfully tagged " + image.Familiar(t) + "\n")
		}
	}
	return p.finish(err)
}

// noProgress drops what a builder says.
type noProgress struct{}

// Status implements Progress.
func (noProgress) Status(string, string, int64, int64) {}

// Stream implements Progress.
func (noProgress) Stream(string) {}

// refuseBuild names the first parameter that nothing here can honour, unless it has its empty value.
func refuseBuild(c *call) error {
	for _, r := range []struct{ key, what string }{
		{"memory", "a memory limit"}, {"memswap", "a swap limit"}, {"cpushares", "CPU shares"}, {"cpuquota", "a CPU quota"},
		{"cpuperiod", "a CPU period"}, {"cpusetcpus", "a CPU set"}, {"cpusetmems", "a memory set"}, {"cgroupparent", "a cgroup parent"},
		{"squash", "squashing layers"}, {"securityopt", "a security option"}, {"outputs", "an output other than this host's images"},
	} {
		switch c.text(r.key) {
		case "", "0", "false", "null", "[]":
		default:
			return notImplemented("building with %s is not supported", r.what)
		}
	}
	if c.text("version") == "2" || c.text("session") != "" {
		return notImplemented("%s", noSession)
	}
	return nil
}

// buildOptions reads the query and the header with the credentials.
func buildOptions(c *call) (image.Build, error) {
	o := image.Build{
		Dockerfile: c.text("dockerfile"), Target: c.text("target"), Remote: c.text("remote"), NoCache: c.flag("nocache"), Pull: c.flag("pull"),
		Platform: c.text("platform"), ExtraHosts: c.query["extrahosts"],
	}
	if err := refuseBuild(c); err != nil {
		return o, err
	}
	switch n := c.text("networkmode"); n {
	case "", "default", "bridge":
	case "none", "host":
		o.Network = n
	default:
		return o, notImplemented("building on network %s is not supported; there are default, host and none", shown(n))
	}
	for _, name := range c.query["t"] {
		if name == "" {
			continue
		}
		n, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return o, invalid("invalid reference format: %s: %v", shown(name), err)
		}
		if _, digested := n.(reference.Digested); digested {
			return o, invalid("build tag cannot contain a digest: %s", shown(name))
		}
		o.Tags = append(o.Tags, reference.TagNameOnly(n).String())
	}
	if s := c.text("shmsize"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 {
			return o, invalid("invalid value %s for \"shmsize\": must be a number of bytes", shown(s))
		}
		o.ShmSize = n
	}
	return o, buildMaps(c, &o)
}

// buildMaps reads the parameters that are JSON.
func buildMaps(c *call, o *image.Build) error {
	read := func(key string, v any) error {
		s := c.text(key)
		if s == "" {
			return nil
		}
		if err := json.Unmarshal([]byte(s), v); err != nil {
			return invalid("invalid value for %q: %s", key, clip(err.Error()))
		}
		return nil
	}
	var (
		args    map[string]*string
		ulimits []container.Ulimit
		err     error
	)
	for key, v := range map[string]any{"buildargs": &args, "labels": &o.Labels, "cachefrom": &o.CacheFrom, "ulimits": &ulimits} {
		if err := read(key, v); err != nil {
			return err
		}
	}
	o.Args = map[string]string{}
	for k, v := range args {
		if v != nil { // without a value it is the client's environment's, and not set there
			o.Args[k] = *v
		}
	}
	for _, u := range ulimits {
		o.Ulimits = append(o.Ulimits, fmt.Sprintf("%s=%d:%d", u.Name, u.Soft, u.Hard))
	}
	for _, h := range o.ExtraHosts {
		if name, addr, ok := strings.Cut(h, ":"); !ok || name == "" || addr == "" || strings.Contains(h, ",") {
			return invalid("invalid extra host %s: want name:address", shown(h))
		}
	}
	o.Auth, err = image.ParseAuths(c.Header.Get("X-Registry-Config"))
	return err
}
