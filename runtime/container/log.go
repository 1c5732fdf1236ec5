package container

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/containerd/errdefs"
	"github.com/docker/cli/templates"
	"github.com/docker/go-units"

	"github.com/moby/moby/api/types/container"
)

// The log drivers. Both that write do so in one form; they differ in their options and in when they rotate.
const (
	LogJSON  = "json-file"
	LogLocal = "local"
	LogNone  = "none"
)

// What docker's local driver does unless told otherwise: 5 files of 20 MB.
const (
	localMaxSize  = 20e6
	localMaxFiles = 5
)

// nonBlocking is the mode in which a container never waits for its log: docker's buffer then is of a megabyte. The most
// is a bound of ours: the buffer is the shim's memory.
const (
	nonBlocking   = "non-blocking"
	defaultBuffer = 1e6
	maxBuffer     = 1 << 30
)

// Log says how a container's output is kept.
type Log struct {
	None bool
	// MaxSize is the size in bytes at which a file is rotated, 0 for never, and MaxFiles how many are kept.
	MaxSize  int64
	MaxFiles int
	Compress bool // the files that are full
	// Buffer is how many bytes of output may wait for the disk before some is dropped; 0: the container waits.
	Buffer int
	// Attrs are kept with each line, for logs --details.
	Attrs map[string]string
}

// NewLog reads the log options of a container.
func NewLog(s *Spec) (Log, error) {
	c := &s.HostConfig.LogConfig
	l := Log{None: c.Type == LogNone}
	if c.Type == LogLocal {
		l.MaxSize, l.MaxFiles, l.Compress = localMaxSize, localMaxFiles, true
	}
	if l.None {
		return l, nil
	}
	if err := l.limits(c.Config); err != nil {
		return l, err
	}
	if err := l.compression(c); err != nil {
		return l, err
	}
	attrs, err := logAttrs(s, c.Config)
	l.Attrs = attrs
	return l, err
}

// limits reads sizes as docker does: powers of ten, and -1 for no limit.
func (l *Log) limits(o map[string]string) (err error) {
	if v, ok := o["max-size"]; ok && v != "-1" {
		if l.MaxSize, err = units.FromHumanSize(v); err != nil || l.MaxSize <= 0 {
			return fmt.Errorf("invalid log opt max-size=%s: max-size must be a positive number: %w", v, errdefs.ErrInvalidArgument)
		}
	} else if ok {
		l.MaxSize = 0
	}
	if o["mode"] == nonBlocking {
		l.Buffer = defaultBuffer
		if v, ok := o["max-buffer-size"]; ok {
			n, err := units.RAMInBytes(v)
			if err != nil || n < 1 || n > maxBuffer {
				return fmt.Errorf("error parsing option max-buffer-size: invalid size: '%s': %w", v, errdefs.ErrInvalidArgument)
			}
			l.Buffer = int(n)
		}
	}
	if v, ok := o["max-file"]; ok {
		if l.MaxFiles, err = strconv.Atoi(v); err != nil || l.MaxFiles < 1 {
			return fmt.Errorf("invalid log opt max-file=%s: max-file cannot be less than 1: %w", v, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

func (l *Log) compression(c *container.LogConfig) (err error) {
	if v, ok := c.Config["compress"]; ok {
		if l.Compress, err = strconv.ParseBool(v); err != nil {
			return fmt.Errorf("invalid log opt compress=%s: want true or false: %w", v, errdefs.ErrInvalidArgument)
		}
	}
	switch {
	case !l.Compress || l.MaxFiles > 1 && l.MaxSize > 0:
		return nil
	case c.Type == LogLocal:
		return fmt.Errorf("compression cannot be enabled when max file count is 1: %w", errdefs.ErrInvalidArgument)
	}
	return fmt.Errorf("compress cannot be true when max-file is less than 2 or max-size is not set: %w", errdefs.ErrInvalidArgument)
}

// logAttrs are the labels and variables that --log-opt names, and the tag.
func logAttrs(s *Spec, o map[string]string) (map[string]string, error) {
	attrs := map[string]string{}
	env := map[string]string{}
	for _, kv := range s.Config.Env {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	for _, from := range []struct {
		key string
		all map[string]string
	}{{"labels", s.Config.Labels}, {"env", env}} {
		if err := pickAttrs(attrs, from.all, o[from.key], o[from.key+"-regex"]); err != nil {
			return nil, fmt.Errorf("invalid log opt %s-regex: %w: %w", from.key, err, errdefs.ErrInvalidArgument)
		}
	}
	tag, err := logTag(s, o["tag"])
	if err != nil {
		return nil, fmt.Errorf("invalid log opt tag: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if tag != "" {
		attrs["tag"] = tag
	}
	return attrs, nil
}

func pickAttrs(to, all map[string]string, list, pattern string) error {
	for name := range strings.SplitSeq(list, ",") {
		if v, ok := all[name]; ok {
			to[name] = v
		}
	}
	if pattern == "" {
		return nil
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return err
	}
	for k, v := range all {
		if re.MatchString(k) {
			to[k] = v
		}
	}
	return nil
}

// shortID is the length of an ID as tables show it, in characters.
const shortID = 12

// tagged is what a tag's template can show: docker's names.
type tagged struct{ spec *Spec }

// ID is the short ID.
func (t tagged) ID() string { return t.spec.Short() }

// FullID is the whole one.
func (t tagged) FullID() string { return t.spec.ID }

// ContainerID is the whole one too.
func (t tagged) ContainerID() string { return t.spec.ID }

// Name is the container's.
func (t tagged) Name() string { return t.spec.Name }

// ContainerName is the name with its slash.
func (t tagged) ContainerName() string { return "/" + t.spec.Name }

// ImageName is as the user wrote it.
func (t tagged) ImageName() string { return t.spec.Image }

// ImageFullID is the image's ID.
func (t tagged) ImageFullID() string { return t.spec.ImageID }

// ImageID is its short form.
func (t tagged) ImageID() string {
	id := strings.TrimPrefix(t.spec.ImageID, "sha256:")
	return id[:min(shortID, len(id))]
}

// Command is the whole command line.
func (t tagged) Command() string { return strings.Join(t.spec.Args(), " ") }

// DaemonName is what docker's daemon calls itself.
func (t tagged) DaemonName() string { return "docker" }

// maxTag bounds a tag's template and what comes of it, in bytes: it is a client's to write and ours to run.
const maxTag = 1024

func logTag(s *Spec, format string) (string, error) {
	if format == "" {
		return "", nil
	}
	if len(format) > maxTag {
		return "", fmt.Errorf("longer than %d bytes", maxTag)
	}
	t, err := templates.New("log-tag").Funcs(template.FuncMap{"pad": pad}).Parse(format)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, tagged{s}); err != nil {
		return "", err
	}
	if out.Len() > maxTag {
		return "", fmt.Errorf("it comes out longer than %d bytes", maxTag)
	}
	return out.String(), nil
}

// pad is docker's, with a bound.
func pad(text string, before, after int) (string, error) {
	if before < 0 || after < 0 || before > maxTag || after > maxTag {
		return "", fmt.Errorf("pad by %d and %d: want 0 to %d", before, after, maxTag)
	}
	if text == "" {
		return "", nil
	}
	return strings.Repeat(" ", before) + text + strings.Repeat(" ", after), nil
}

// validateLog refuses options that the driver does not know, in docker's words.
func validateLog(c *container.LogConfig) error {
	known := []string{"mode", "max-buffer-size", "max-size", "max-file", "compress"}
	switch c.Type {
	case "", LogJSON:
		known = append(known, "labels", "labels-regex", "env", "env-regex", "tag")
	case LogLocal:
	case LogNone:
		known = nil
	default:
		return nil // refused by name
	}
	for _, k := range slices.Sorted(maps.Keys(c.Config)) {
		if !slices.Contains(known, k) {
			return fmt.Errorf("unknown log opt '%s' for %s log driver: %w", k, orJSON(c.Type), errdefs.ErrInvalidArgument)
		}
	}
	switch m := c.Config["mode"]; m {
	case "", "blocking", nonBlocking:
	default:
		return fmt.Errorf("logger: logging mode not supported: %s: %w", m, errdefs.ErrInvalidArgument)
	}
	if _, ok := c.Config["max-buffer-size"]; ok && c.Config["mode"] != nonBlocking {
		return fmt.Errorf("logger: max-buffer-size option is only supported with 'mode=non-blocking': %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

// CheckLog refuses what no container could have as its log's settings.
func CheckLog(c container.LogConfig) error {
	var unknown names
	if unknown.log(&c); len(unknown) > 0 {
		return fmt.Errorf("no log driver named %q: want %s, %s or %s: %w", c.Type, LogJSON, LogLocal, LogNone, errdefs.ErrInvalidArgument)
	}
	if err := validateLog(&c); err != nil {
		return err
	}
	_, err := NewLog(&Spec{Config: &container.Config{}, HostConfig: &container.HostConfig{LogConfig: c}})
	return err
}

// DefaultLog fills in what a container does not say about its log: the driver, and that driver's options. Options of
// another driver than the container's are not for it.
func DefaultLog(c *container.LogConfig, def container.LogConfig) {
	def.Type = orJSON(def.Type)
	if c.Type == "" {
		c.Type = def.Type
	}
	own := c.Config
	c.Config = map[string]string{} // never null, as docker shows it
	if c.Type == def.Type {
		maps.Copy(c.Config, def.Config)
	}
	maps.Copy(c.Config, own)
}

func orJSON(driver string) string {
	if driver == "" {
		return LogJSON
	}
	return driver
}

// log names what no driver here does.
func (n *names) log(c *container.LogConfig) {
	switch c.Type {
	case "", LogJSON, LogLocal, LogNone:
	default:
		n.add(true, "--log-driver "+c.Type)
	}
}
