package container

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// Unconfined is the word for no seccomp profile and for no AppArmor profile.
const Unconfined = "unconfined"

// Security is what --security-opt asks for.
type Security struct {
	NoNewPrivileges bool
	// Seccomp is empty for the default profile, Unconfined for none, else a profile's text in docker's form.
	Seccomp string
	// AppArmor is the profile's name; empty: the default one.
	AppArmor string
	// WritableCgroups lets the container change its own cgroup's files.
	WritableCgroups bool
}

// NewSecurity reads the options, with docker's refusals. Labels are SELinux's, and not looked at here.
func NewSecurity(opts []string) (Security, error) {
	var s Security
	for _, o := range opts {
		if o == "no-new-privileges" {
			s.NoNewPrivileges = true
			continue
		}
		kind, value, ok := cutSecurityOpt(o)
		if !ok {
			return s, fmt.Errorf("invalid --security-opt 1: %q: %w", o, errdefs.ErrInvalidArgument)
		}
		if err := s.set(kind, value); err != nil {
			return s, fmt.Errorf("invalid --security-opt 2: %q: %w", o, errdefs.ErrInvalidArgument)
		}
	}
	return s, nil
}

func (s *Security) set(kind, value string) (err error) {
	switch kind {
	case "label":
	case "apparmor":
		s.AppArmor = value
	case "seccomp":
		s.Seccomp = value
		if value == "builtin" {
			s.Seccomp = ""
		}
	case "no-new-privileges":
		s.NoNewPrivileges, err = strconv.ParseBool(value)
	case "writable-cgroups":
		s.WritableCgroups, err = strconv.ParseBool(value)
	default:
		err = errdefs.ErrInvalidArgument
	}
	return err
}

// cutSecurityOpt splits at the equals sign, or at the colon of before Docker 1.11.
func cutSecurityOpt(o string) (kind, value string, ok bool) {
	if strings.Contains(o, "=") {
		return strings.Cut(o, "=")
	}
	return strings.Cut(o, ":")
}
