package ctrd

import (
	"fmt"

	"github.com/containerd/containerd/v2/contrib/apparmor"
	support "github.com/containerd/containerd/v2/pkg/apparmor"
)

// LoadAppArmor loads the profile that containers run under unless told otherwise, containerd's template under our name,
// and gives that, also when it fails: then containers that need it do not start, rather than run without. The name is empty
// where the kernel has no AppArmor, or the machine no apparmor_parser.
func LoadAppArmor(name string) (string, error) {
	if !support.HostSupports() {
		return "", nil
	}
	if err := apparmor.LoadDefaultProfile(name); err != nil {
		return name, fmt.Errorf("load AppArmor profile %s: %w", name, err)
	}
	return name, nil
}
