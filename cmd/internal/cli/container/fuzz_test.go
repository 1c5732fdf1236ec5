package container

import (
	"path"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// Whatever is typed behind run is either refused or becomes a request; nothing of it may end the program.
func FuzzCreateFlags(f *testing.F) {
	for _, s := range []string{
		"-p 80:80 busybox", "-v /a:/b --network name=a,ip=10.0.0.1 busybox sh", "--device /dev/a:/b:rwm x", "-p [::1]:1-2:3-4/udp x",
		"--add-host a:b --dns 1.1.1.1 --expose 1-3 x", "--security-opt a:b --restart on-failure:3 x", "--network-alias a --link b x",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		for _, reads := range []string{"file", "seccomp", "mount", "gpus"} {
			if strings.Contains(line, reads) {
				t.Skip("reads files of this machine, or is docker's own parser")
			}
		}
		fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
		fs.Usage = func() {}
		var o createOptions
		o.add(fs)
		if fs.Parse(strings.Fields(line)) != nil || fs.NArg() == 0 {
			return
		}
		o.setArgs(fs.Args())
		s, err := o.flags.build(fs, o.image, o.args)
		if err != nil {
			return
		}
		for _, d := range s.host.Devices {
			if !path.IsAbs(d.PathInContainer) || d.CgroupPermissions == "" {
				t.Errorf("%q: device %+v", line, d)
			}
		}
		for _, b := range s.host.Binds {
			if n := strings.Count(b, ":"); n < 1 || n > 2 {
				t.Errorf("%q: bind %q", line, b)
			}
		}
	})
}

func TestParseDevice(t *testing.T) {
	for _, c := range []struct{ in, host, inside, perm, err string }{
		{"/dev/a", "/dev/a", "/dev/a", "rwm", ""},
		{"/dev/a:rm", "/dev/a", "/dev/a", "rm", ""},
		{"/dev/a:/dev/b", "/dev/a", "/dev/b", "rwm", ""},
		{"/dev/a:/dev/b:w", "/dev/a", "/dev/b", "w", ""},
		{"/dev/a:/dev/b:rr", "", "", "", "bad mode"},
		{"dev:x", "", "", "", "not an absolute path"},
		{":/dev/b", "", "", "", "bad format"},
		{"a:b:c:d", "", "", "", "bad format"},
	} {
		m, err := parseDevice(c.in)
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: error %v, want %s", c.in, err, c.err)
			}
		case err != nil || m.PathOnHost != c.host || m.PathInContainer != c.inside || m.CgroupPermissions != c.perm:
			t.Errorf("%s: %+v, %v", c.in, m, err)
		}
	}
}

func TestIsCDI(t *testing.T) {
	for in, want := range map[string]bool{
		"nvidia.com/gpu=all": true, "/dev/a": false, "/dev/by-id/x=y": false, "gpu=all": false, "a/b=": false,
	} {
		if isCDI(in) != want {
			t.Errorf("%s: want %v", in, want)
		}
	}
}

func TestStartCode(t *testing.T) {
	for text, want := range map[string]int{
		"exec: \"x\": executable file not found in $PATH": 127, "stat /x: no such file or directory": 127,
		"permission denied": 126, "is a directory": 126, "port is already allocated": 125,
	} {
		if got := startCode(text); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}
