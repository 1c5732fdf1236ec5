package image

import (
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
)

// CheckPlatform refuses an image that is for another platform than the wanted one, such as linux/arm64: errdefs.ErrNotFound,
// so that clients pull the wanted one. An image that does not say is taken at its name, and an empty wish is none.
func CheckPlatform(i Image, ref, want string) error {
	if want == "" {
		return nil
	}
	p, err := platforms.Parse(want)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	has := i.Config.Platform
	if has.Architecture == "" || platforms.Only(p).Match(platforms.Normalize(has)) {
		return nil
	}
	return fmt.Errorf("image with reference %s was found but its platform (%s) does not match the specified platform (%s): %w",
		ref, platforms.Format(has), platforms.Format(p), errdefs.ErrNotFound)
}

// ForeignPlatform is docker's warning about an image that this host cannot run by itself; empty for all others.
func ForeignPlatform(i Image) string {
	has, host := i.Config.Platform, platforms.DefaultSpec()
	if has.Architecture == "" || platforms.Only(host).Match(platforms.Normalize(has)) {
		return ""
	}
	return fmt.Sprintf("The requested image's platform (%s) does not match the detected host platform (%s) and no specific platform was requested",
		platforms.FormatAll(has), platforms.FormatAll(host))
}
