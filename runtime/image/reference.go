package image

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
)

// ParseName reads a name as a user types it: busybox is docker.io/library/busybox:latest. With a digest the tag, if any,
// is dropped, since the digest alone decides.
func ParseName(name string) (reference.Named, error) {
	n, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", docker(err), errdefs.ErrInvalidArgument)
	}
	if d, ok := n.(reference.Digested); ok {
		c, err := reference.WithDigest(reference.TrimNamed(n), d.Digest())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", docker(err), errdefs.ErrInvalidArgument)
		}
		return c, nil
	}
	return reference.TagNameOnly(n), nil
}

// docker gives the parser's error in the words docker's clients print and scripts look for.
func docker(err error) string {
	if errors.Is(err, reference.ErrReferenceInvalidFormat) {
		return reference.ErrReferenceInvalidFormat.Error()
	}
	return err.Error()
}

// Normalize is ParseName's text, the form under which images are stored.
func Normalize(name string) (string, error) {
	n, err := ParseName(name)
	if err != nil {
		return "", err
	}
	return n.String(), nil
}

// Familiar is a stored name as docker shows it; text that is no name comes back as it is.
func Familiar(name string) string {
	n, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return reference.FamiliarString(n)
}

// Repository is the part of a familiar name before the tag or digest.
func Repository(name string) string {
	n, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return reference.FamiliarName(n)
}

// NotFound is docker's error for an image that is not here.
func NotFound(ref string) error {
	text := ref
	if n, err := reference.ParseNormalizedNamed(ref); err == nil {
		text = reference.FamiliarString(reference.TagNameOnly(n))
	}
	return notFound{text}
}

// notFound prints exactly docker's text: tools compare it.
type notFound struct{ ref string }

func (e notFound) Error() string { return "No such image: " + e.ref }
func (e notFound) Unwrap() error { return errdefs.ErrNotFound }

// Find is the image that ref means: a full ID, else a name, else an unambiguous prefix of an ID, in docker's order. byID
// tells that it was an ID or a prefix of one.
//
// An ambiguous prefix counts as not found, as with docker: it may well be the name of an image nobody has pulled yet.
func Find(all []Image, ref string) (img Image, byID bool, err error) {
	hex := strings.TrimPrefix(ref, "sha256:")
	if len(hex) == 64 && isHex(hex) {
		for _, i := range all {
			if i.ID == "sha256:"+hex {
				return i, true, nil
			}
		}
		return Image{}, false, NotFound(ref)
	}
	if n, err := ParseName(ref); err == nil {
		want := reference.FamiliarString(n)
		for _, i := range all {
			if slices.Contains(i.RepoTags, want) || slices.Contains(i.RepoDigests, want) {
				return i, false, nil
			}
		}
	} else if !isHex(hex) {
		return Image{}, false, err
	}
	var found []Image
	for _, i := range all {
		if isHex(hex) && strings.HasPrefix(i.ID, "sha256:"+hex) {
			found = append(found, i)
		}
	}
	switch len(found) {
	case 0:
		return Image{}, false, NotFound(ref)
	case 1:
		return found[0], true, nil
	}
	return Image{}, false, fmt.Errorf("%w (the prefix of %d image IDs)", NotFound(ref), len(found))
}

func isHex(s string) bool {
	return s != "" && strings.Trim(s, "0123456789abcdef") == ""
}

// Tags are the names that a reference without tag or digest stands for where a whole repository is meant, in docker's
// short form; none for a reference that says more, or that names an image by ID.
func Tags(all []Image, ref string) map[string]Image {
	n, err := reference.ParseNormalizedNamed(ref)
	if err != nil || !reference.IsNameOnly(n) {
		return nil
	}
	out := map[string]Image{}
	for _, i := range all {
		for _, t := range i.RepoTags {
			if Repository(t) == reference.FamiliarName(n) {
				out[t] = i
			}
		}
	}
	return out
}
