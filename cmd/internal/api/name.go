package api

import (
	"strings"

	"github.com/minictl/minictl/runtime/container"
)

// nameChars is how docker writes the rule in its messages.
const nameChars = "[a-zA-Z0-9][a-zA-Z0-9_.-]"

// checkContainerName refuses what docker refuses; a leading slash is allowed, since inspect gives names with one.
func checkContainerName(name string) error {
	if container.ValidName(strings.TrimPrefix(name, "/")) {
		return nil
	}
	return invalid("Invalid container name (%s), only %s are allowed", clip(name), nameChars)
}

// maxName bounds a network's name, in bytes, as a container's is. Docker has no bound, but here names travel to every host
// and into DNS answers.
const maxName = 255

// checkNetworkName refuses what nobody could type again: docker refuses only the empty one.
func checkNetworkName(name string) error {
	if strings.TrimSpace(name) == "" {
		return invalid("invalid name: name is empty")
	}
	if len(name) > maxName {
		return invalid("invalid name %s: longer than %d bytes", shown(name), maxName)
	}
	for _, r := range name {
		if r < ' ' || r == 0x7f || r == '/' || r == '\uFFFD' {
			return invalid("invalid name %s: control characters and slashes are not allowed", shown(name))
		}
	}
	return nil
}
