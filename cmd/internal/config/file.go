package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// readFile sets every flag that the file has a key for. Only a file that was asked for has to be there.
func (c *Config) readFile(f *pflag.FlagSet) error {
	text, err := os.ReadFile(c.File)
	if errors.Is(err, fs.ErrNotExist) && !f.Changed("config-file") {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the daemon's configuration: %w", err)
	}
	if err := apply(text, f); err != nil {
		return fmt.Errorf("unable to configure the daemon with file %s: %w", c.File, err)
	}
	return nil
}

// apply sets the flags that the JSON object text has keys for. A key that is no flag is refused by name, and so is one
// whose flag stands on the command line as well: dockerd's rules.
func apply(text []byte, f *pflag.FlagSet) error {
	keys := map[string]json.RawMessage{}
	dec := json.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&keys); errors.Is(err, io.EOF) {
		return nil // an empty file says nothing
	} else if err != nil {
		return fmt.Errorf("invalid JSON: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("invalid JSON: there is more after the object's end")
	}
	var unknown, twice []string
	flags := map[string]*pflag.Flag{}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		flag := flagOf(key, f)
		switch {
		case flag == nil:
			unknown = append(unknown, key)
		case flag.Changed:
			twice = append(twice, fmt.Sprintf("%s: (from flag: %s, from file: %s)", key, flag.Value, bytes.TrimSpace(keys[key])))
		default:
			flags[key] = flag
		}
	}
	if len(unknown) > 0 {
		return fmt.Errorf("the following directives don't match any configuration option: %s", strings.Join(unknown, ", "))
	}
	if len(twice) > 0 {
		return fmt.Errorf("the following directives are specified both as a flag and in the configuration file: %s", strings.Join(twice, ", "))
	}
	for _, key := range slices.Sorted(maps.Keys(flags)) {
		if err := set(flags[key], keys[key]); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return nil
}

// flagOf finds a key's flag. The keys of what may be given many times are in the plural, as dockerd's. Flags that say what to
// do now, or where the file is, have none.
func flagOf(key string, f *pflag.FlagSet) *pflag.Flag {
	switch key {
	case "hosts", "labels", "registry-mirrors", "log-opts", "cluster-store-opts", "default-address-pools", "default-network-opts", "dns-opts":
		return f.Lookup(strings.TrimSuffix(key, "s"))
	case "insecure-registries":
		return f.Lookup("insecure-registry")
	case "host", "label", "insecure-registry", "registry-mirror", "log-opt", "cluster-store-opt", "default-address-pool", "default-network-opt", "dns-opt", "config-file", "validate", "cleanup", "force", "purge", "help":
		return nil
	}
	return f.Lookup(key)
}

// fromFile marks the flags that the file has set.
const fromFile = "minictl_from_file"

// set gives a flag the file's value, which has to be of the flag's own kind: "true" is no boolean.
func set(flag *pflag.Flag, value json.RawMessage) error {
	var err error
	switch flag.Value.Type() {
	case "bool":
		var b bool
		if err = strict(value, &b, "true or false"); err == nil {
			err = flag.Value.Set(fmt.Sprint(b))
		}
	case "pools":
		err = flag.Value.(pools).setPools(value)
	case "networkOptions":
		err = flag.Value.(networkOptions).setOptions(value)
	case "int":
		var n int
		if err = strict(value, &n, "a number"); err == nil {
			err = flag.Value.Set(fmt.Sprint(n))
		}
	case "stringArray":
		var list []string
		if err = strict(value, &list, "a list of strings"); err == nil {
			err = flag.Value.(pflag.SliceValue).Replace(list)
		}
	case "map":
		var values map[string]string
		if err = strict(value, &values, "an object of strings"); err == nil {
			for _, k := range slices.Sorted(maps.Keys(values)) {
				err = errors.Join(err, flag.Value.Set(k+"="+values[k]))
			}
		}
	default:
		var s string
		if err = strict(value, &s, "a string"); err == nil {
			err = flag.Value.Set(s)
		}
	}
	if err == nil {
		flag.Annotations = map[string][]string{fromFile: nil}
	}
	return err
}

func strict(value json.RawMessage, into any, want string) error {
	if json.Unmarshal(value, into) != nil || bytes.Equal(bytes.TrimSpace(value), []byte("null")) {
		return fmt.Errorf("want %s, not %s", want, value)
	}
	return nil
}

// said tells whether a flag was given, on the command line or in the file.
func said(f *pflag.FlagSet, name string) bool {
	flag := f.Lookup(name)
	if flag == nil {
		return false
	}
	_, inFile := flag.Annotations[fromFile]
	return flag.Changed || inFile
}
