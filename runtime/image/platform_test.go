package image

import (
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestPlatforms(t *testing.T) {
	of := func(arch, variant string) Image {
		i := Image{}
		i.Config.Platform = ocispec.Platform{OS: "linux", Architecture: arch, Variant: variant}
		return i
	}
	for _, c := range []struct {
		image Image
		want  string
		is    func(error) bool
	}{
		{of("arm64", "v8"), "", nil}, {of("arm64", "v8"), "linux/arm64", nil}, {of("arm64", ""), "linux/arm64/v8", nil}, {of("arm", "v6"), "linux/arm/v7", nil},
		{of("", ""), "linux/s390x", nil}, {of("amd64", ""), "linux/s390x", errdefs.IsNotFound}, {of("arm", "v7"), "linux/arm/v6", errdefs.IsNotFound},
		{of("amd64", ""), "a/b/c/d/e", errdefs.IsInvalidArgument}, {of("amd64", ""), "linux/\u0001", errdefs.IsInvalidArgument},
	} {
		err := CheckPlatform(c.image, "box", c.want)
		if (c.is == nil) != (err == nil) || err != nil && !c.is(err) {
			t.Errorf("%v as %q: %v", c.image.Config.Platform, c.want, err)
		}
	}
	foreign := "s390x"
	if runtime.GOARCH == foreign {
		foreign = "amd64"
	}
	if got := ForeignPlatform(of(runtime.GOARCH, "")); got != "" {
		t.Error(got)
	}
	if got := ForeignPlatform(of(foreign, "")); !strings.Contains(got, "(linux/"+foreign+") does not match the detected host platform (linux/"+runtime.GOARCH) {
		t.Error(got)
	}
}
