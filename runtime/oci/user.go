package oci

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/user"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// User resolves what -u says against the container's own passwd and group files (either may be nil: numbers and the
// empty user, which is root, need none). It also gives the user's home folder.
func User(asked string, passwd, group []byte, extra []string) (specs.User, string, error) {
	defaults := &user.ExecUser{Home: "/"}
	u, err := user.GetExecUser(asked, defaults, bytes.NewReader(passwd), bytes.NewReader(group))
	if err != nil {
		name, _, _ := strings.Cut(asked, ":")
		return specs.User{}, "", fmt.Errorf("unable to find user %s: no matching entries in passwd file: %w", name, errdefs.ErrInvalidArgument)
	}
	out := specs.User{UID: uint32(u.Uid), GID: uint32(u.Gid)}
	for _, g := range u.Sgids {
		out.AdditionalGids = append(out.AdditionalGids, uint32(g))
	}
	if len(extra) > 0 {
		gids, err := user.GetAdditionalGroups(extra, bytes.NewReader(group))
		if err != nil {
			return specs.User{}, "", fmt.Errorf("unable to find group: %w: %w", err, errdefs.ErrInvalidArgument)
		}
		for _, g := range gids {
			out.AdditionalGids = append(out.AdditionalGids, uint32(g))
		}
	}
	home := u.Home
	if out.UID == 0 && len(passwd) == 0 {
		home = "/root"
	}
	return out, home, nil
}

// NeedsFiles tells whether User must see the container's files: a name has to be looked up.
func NeedsFiles(asked string, extra []string) bool {
	numeric := func(s string) bool { return strings.Trim(s, "0123456789") == "" }
	u, g, _ := strings.Cut(asked, ":")
	if !numeric(u) || !numeric(g) {
		return true
	}
	for _, e := range extra {
		if !numeric(e) {
			return true
		}
	}
	return false
}
