package image

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Change applies "docker import --change" lines, which are Dockerfile instructions, to an image's configuration. It knows
// those that only change the configuration: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR.
func Change(c *ocispec.ImageConfig, changes []string) error {
	for _, line := range changes {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		word, rest = strings.ToUpper(word), strings.TrimSpace(rest)
		if word == "" {
			continue
		}
		if rest == "" {
			return fmt.Errorf("%s requires at least one argument: %w", word, errdefs.ErrInvalidArgument)
		}
		if err := change(c, word, rest); err != nil {
			return fmt.Errorf("change %q: %w", line, err)
		}
	}
	return nil
}

func change(c *ocispec.ImageConfig, word, rest string) error {
	switch word {
	case "CMD":
		c.Cmd = command(rest)
	case "ENTRYPOINT":
		c.Entrypoint = command(rest)
	case "USER":
		c.User = rest
	case "WORKDIR":
		c.WorkingDir = rest
	case "STOPSIGNAL":
		c.StopSignal = rest
	case "ENV":
		return eachPair(rest, func(k, v string) { c.Env = setEnv(c.Env, k, v) })
	case "LABEL":
		return eachPair(rest, func(k, v string) {
			// A copy: the configuration may share its map with the one it was made from.
			c.Labels = maps.Clone(c.Labels)
			if c.Labels == nil {
				c.Labels = map[string]string{}
			}
			c.Labels[k] = v
		})
	case "EXPOSE":
		return expose(c, rest)
	case "VOLUME":
		if c.Volumes == nil {
			c.Volumes = map[string]struct{}{}
		}
		for _, v := range list(rest) {
			c.Volumes[v] = struct{}{}
		}
	default:
		return fmt.Errorf("%s is not a valid change command: %w", word, errdefs.ErrInvalidArgument)
	}
	return nil
}

// command reads the exec form, a JSON array, or else the shell form.
func command(text string) []string {
	var args []string
	if json.Unmarshal([]byte(text), &args) == nil {
		return args
	}
	return []string{"/bin/sh", "-c", text}
}

// list reads a JSON array or words.
func list(text string) []string {
	var l []string
	if json.Unmarshal([]byte(text), &l) == nil {
		return l
	}
	return strings.Fields(text)
}

// setEnv replaces a variable in its place or appends it.
func setEnv(env []string, k, v string) []string {
	out := slices.Clone(env)
	for i, kv := range out {
		if name, _, _ := strings.Cut(kv, "="); name == k {
			out[i] = k + "=" + v
			return out
		}
	}
	return append(out, k+"="+v)
}

// expose adds ports: 80, 53/udp, 8000-8010/tcp.
func expose(c *ocispec.ImageConfig, text string) error {
	if c.ExposedPorts == nil {
		c.ExposedPorts = map[string]struct{}{}
	}
	for p := range strings.FieldsSeq(text) {
		ports, proto, ok := strings.Cut(p, "/")
		if proto = strings.ToLower(proto); !ok {
			proto = "tcp"
		}
		if proto != "tcp" && proto != "udp" && proto != "sctp" {
			return fmt.Errorf("invalid proto: %s: %w", proto, errdefs.ErrInvalidArgument)
		}
		from, to, isRange := strings.Cut(ports, "-")
		if !isRange {
			to = from
		}
		first, err1 := strconv.ParseUint(from, 10, 16)
		last, err2 := strconv.ParseUint(to, 10, 16)
		if err1 != nil || err2 != nil || first == 0 || last < first {
			return fmt.Errorf("invalid containerPort: %s: %w", ports, errdefs.ErrInvalidArgument)
		}
		for n := first; n <= last; n++ {
			c.ExposedPorts[fmt.Sprintf("%d/%s", n, proto)] = struct{}{}
		}
	}
	return nil
}

// eachPair reads k=v pairs, where quotes and backslashes keep blanks together, or the older form "k rest of the line".
func eachPair(text string, set func(k, v string)) error {
	words, err := split(text)
	if err != nil {
		return err
	}
	if !strings.Contains(words[0], "=") {
		k, v, _ := strings.Cut(text, " ")
		if v = strings.TrimSpace(v); v == "" {
			return fmt.Errorf("%s must have two arguments: %w", k, errdefs.ErrInvalidArgument)
		}
		set(k, v)
		return nil
	}
	for _, w := range words {
		k, v, ok := strings.Cut(w, "=")
		if !ok || k == "" {
			return fmt.Errorf("syntax error - can't find = in %q: %w", w, errdefs.ErrInvalidArgument)
		}
		set(k, v)
	}
	return nil
}

// split cuts at blanks outside quotes and takes quotes and backslashes away. Text without a blank is one word; there is
// always at least one.
func split(text string) ([]string, error) {
	var words []string
	var word strings.Builder
	var quote rune
	escaped := false
	for _, r := range text {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped = true
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote = r
		case quote == 0 && (r == ' ' || r == '\t'):
			if word.Len() > 0 {
				words = append(words, word.String())
				word.Reset()
			}
		default:
			word.WriteRune(r)
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("unexpected end of statement while looking for matching quote: %w", errdefs.ErrInvalidArgument)
	}
	return append(words, word.String()), nil
}
