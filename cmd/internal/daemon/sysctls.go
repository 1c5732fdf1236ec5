package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver/bridge"
	"github.com/minictl/minictl/netdriver/nl"
	"github.com/minictl/minictl/netdriver/overlay"
)

// sysctlFile keeps, below the exec root, what the host's settings were before the first daemon since boot changed them.
const sysctlFile = "sysctls.json"

// rememberSysctls writes the file unless it is there: what an earlier daemon found is the truth.
func rememberSysctls(execRoot string) error {
	path := filepath.Join(execRoot, sysctlFile)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	values := map[string]string{}
	for _, key := range slices.Concat(bridge.Sysctls(), overlay.Sysctls()) {
		v, err := nl.Sysctl(key)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		values[key] = v
	}
	b, err := json.Marshal(values)
	if err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("remember the host's settings: %w", err)
	}
	return os.Rename(tmp, path)
}

// restoreSysctls puts them back; what lets containers out, forwarding, only where nobody else may need it.
func restoreSysctls(execRoot string, forwarding bool) error {
	b, err := os.ReadFile(filepath.Join(execRoot, sysctlFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no daemon since boot
	}
	if err != nil {
		return err
	}
	var values map[string]string
	if err := json.Unmarshal(b, &values); err != nil {
		return fmt.Errorf("read %s: %w", sysctlFile, err)
	}
	var errs []error
	keys := overlay.Sysctls()
	if forwarding {
		keys = append(keys, bridge.Sysctls()...)
	}
	for _, key := range keys {
		if v, ok := values[key]; ok {
			errs = append(errs, nl.SetSysctl(key, v))
		}
	}
	return errors.Join(errs...)
}
