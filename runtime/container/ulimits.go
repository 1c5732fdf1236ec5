package container

import "github.com/moby/moby/api/types/container"

// unlimited is how clients write that there is no limit.
const unlimited = -1

// validateUlimits refuses what setrlimit(2) would, which is asked only when the process is about to start.
func validateUlimits(list []*container.Ulimit) error {
	for _, u := range list {
		if u == nil {
			return refused("invalid ulimit: null")
		}
		if _, err := u.GetRlimit(); err != nil {
			return refused("%v", err)
		}
		if u.Hard != unlimited && (u.Soft > u.Hard || u.Soft == unlimited) {
			return refused("ulimit soft limit must be less than or equal to hard limit: %d > %d", u.Soft, u.Hard)
		}
	}
	return nil
}
