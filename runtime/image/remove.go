package image

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// Removal is what removing an image comes to.
type Removal struct {
	Image  Image
	Untag  []string // names to take away, docker's short form
	Delete bool     // nothing names it any more: the image itself goes
}

// Steps are the removal as the API answers it.
func (r Removal) Steps() []Removed {
	var out []Removed
	for _, n := range r.Untag {
		out = append(out, Removed{Untagged: n})
	}
	if r.Delete {
		out = append(out, Removed{Deleted: r.Image.ID})
	}
	return out
}

// User is a container that was made from an image.
type User struct {
	ID      string
	Running bool // or paused, or about to be started again
}

// running finds one that runs.
func running(users []User) (User, bool) {
	i := slices.IndexFunc(users, func(u User) bool { return u.Running })
	if i < 0 {
		return User{}, false
	}
	return users[i], true
}

// conflict prints exactly docker's text: tools look for it.
type conflict string

func (c conflict) Error() string { return string(c) }
func (c conflict) Unwrap() error { return errdefs.ErrConflict }

// PlanRemoval decides, with docker's rules, what "rmi ref" does. inUse gives the containers made from an image.
// A name that is not the last one is only taken away; the image goes with its last name, or by ID.
func PlanRemoval(all []Image, ref string, force bool, inUse func(id string) []User) (Removal, error) {
	img, byID, err := Find(all, ref)
	if err != nil {
		return Removal{}, err
	}
	if byID {
		return removeByID(img, force, inUse(img.ID))
	}
	return removeByName(img, ref, force, inUse(img.ID))
}

func removeByID(img Image, force bool, users []User) (Removal, error) {
	names := append(slices.Clone(img.RepoTags), img.RepoDigests...)
	if u, ok := running(users); ok {
		return Removal{}, conflict(fmt.Sprintf("conflict: unable to delete %s (cannot be forced) - image is being used by running container %s", ShortID(img.ID), ShortID(u.ID)))
	}
	if !force && !oneReference(img) {
		return Removal{}, conflict(fmt.Sprintf("conflict: unable to delete %s (must be forced) - image is referenced in multiple repositories", ShortID(img.ID)))
	}
	if !force && len(users) > 0 {
		return Removal{}, conflict(fmt.Sprintf("conflict: unable to delete %s (must be forced) - image is being used by stopped container %s", ShortID(img.ID), ShortID(users[0].ID)))
	}
	return Removal{Image: img, Untag: names, Delete: true}, nil
}

func removeByName(img Image, ref string, force bool, users []User) (Removal, error) {
	if !force && oneReference(img) && len(users) > 0 {
		return Removal{}, conflict(fmt.Sprintf("conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s",
			ref, ShortID(users[0].ID), ShortID(img.ID)))
	}
	n, err := ParseName(ref)
	if err != nil {
		return Removal{}, err
	}
	gone := []string{Familiar(n.String())}
	repo := Repository(gone[0])
	tagsLeft := slices.ContainsFunc(img.RepoTags, func(t string) bool { return t != gone[0] && Repository(t) == repo })
	if !tagsLeft {
		// Digests come with a pull of a tag; without a tag of their repository they would keep the image for nobody.
		for _, d := range img.RepoDigests {
			if d != gone[0] && Repository(d) == repo && !strings.Contains(gone[0], "@") {
				gone = append(gone, d)
			}
		}
	}
	left := len(img.RepoTags) + len(img.RepoDigests) - len(gone)
	// With force and a container on it, only the name goes: the image stays, dangling, until the container does.
	return Removal{Image: img, Untag: gone, Delete: left == 0 && len(users) == 0}, nil
}

// oneReference tells whether an image has one name at most; the digests its repository knows it by do not count.
func oneReference(img Image) bool {
	if len(img.RepoTags) > 1 {
		return false
	}
	repos := map[string]bool{}
	for _, n := range append(slices.Clone(img.RepoTags), img.RepoDigests...) {
		repos[Repository(n)] = true
	}
	return len(repos) <= 1
}
