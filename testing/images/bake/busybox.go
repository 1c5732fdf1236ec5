package bake

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// FindBusybox gives the path of a static busybox: the machine's own, or Debian's busybox-static fetched with apt-get and
// unpacked into dir.
func FindBusybox(ctx context.Context, dir string) (string, error) {
	places := []string{"/bin/busybox", "/usr/bin/busybox", filepath.Join(dir, "bin/busybox"), filepath.Join(dir, "usr/bin/busybox")}
	if i := slices.IndexFunc(places, static); i >= 0 {
		return places[i], nil
	}
	if err := FetchDebian(ctx, dir, "busybox-static"); err != nil {
		return "", err
	}
	if i := slices.IndexFunc(places, static); i >= 0 {
		return places[i], nil
	}
	return "", errors.New("find busybox: not in Debian's busybox-static package: install a static busybox as /bin/busybox")
}

// static tells whether a file is a program that runs without libraries: Debian's other busybox package does not.
func static(file string) bool {
	f, err := elf.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	return !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// FetchDebian downloads a Debian package and unpacks it below dir, without installing it.
func FetchDebian(ctx context.Context, dir, pkg string) error {
	tmp, err := os.MkdirTemp("", "minictl-deb-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	// apt-get's own user must be able to write here, else it warns.
	if err := os.Chmod(tmp, 0o777); err != nil {
		return err
	}
	get := exec.CommandContext(ctx, "apt-get", "download", pkg)
	get.Dir = tmp
	if out, err := get.CombinedOutput(); err != nil {
		return fmt.Errorf("download Debian package %s (try apt-get update): %w: %s", pkg, err, out)
	}
	debs, _ := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if len(debs) != 1 {
		return fmt.Errorf("download Debian package %s: got %d files", pkg, len(debs))
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", debs[0], dir).CombinedOutput(); err != nil {
		return fmt.Errorf("unpack Debian package %s: %w: %s", pkg, err, out)
	}
	return nil
}

// Busybox is busybox:latest: a root file system with every applet of the given static busybox, and a shell as command.
func Busybox(ctx context.Context, binary string) (Image, error) {
	bin, err := os.ReadFile(binary)
	if err != nil {
		return Image{}, fmt.Errorf("bake busybox: %w", err)
	}
	list, err := exec.CommandContext(ctx, binary, "--list-full").Output()
	if err != nil {
		return Image{}, fmt.Errorf("bake busybox: list applets: %w", err)
	}
	layer, err := Layer(busyboxFiles(bin, strings.Fields(string(list))))
	if err != nil {
		return Image{}, fmt.Errorf("bake busybox: %w", err)
	}
	return Image{
		Names:  []string{"busybox:latest"},
		Arch:   runtime.GOARCH,
		Layers: [][]byte{layer},
		Config: ocispec.ImageConfig{
			Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			Cmd: []string{"sh"},
		},
	}, nil
}

const passwd = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
`

const group = `root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
wheel:x:10:root
www-data:x:33:
users:x:100:
nogroup:x:65534:
`

// busyboxFiles is the root file system, folders before what is in them.
func busyboxFiles(bin []byte, applets []string) []File {
	var files []File
	for _, d := range []string{"bin", "dev", "etc", "home", "proc", "run", "sbin", "sys", "usr", "usr/bin", "usr/sbin", "var", "var/spool", "var/www"} {
		files = append(files, File{Path: d + "/", Mode: 0o755})
	}
	files = append(files,
		File{Path: "root/", Mode: 0o700},
		File{Path: "tmp/", Mode: 0o1777},
		File{Path: "var/tmp/", Mode: 0o1777},
		File{Path: "etc/passwd", Mode: 0o644, Body: []byte(passwd)},
		File{Path: "etc/group", Mode: 0o644, Body: []byte(group)},
		File{Path: "etc/shells", Mode: 0o644, Body: []byte("/bin/sh\n/bin/ash\n")},
		File{Path: "bin/busybox", Mode: 0o755, Body: bin},
	)
	slices.Sort(applets)
	made := map[string]bool{"bin/busybox": true}
	for _, a := range applets {
		a = strings.TrimPrefix(path.Clean(a), "/")
		if made[a] || !slices.Contains([]string{"bin", "sbin", "usr/bin", "usr/sbin"}, path.Dir(a)) {
			continue // such as linuxrc, which is for an initial ram disk
		}
		made[a] = true
		files = append(files, File{Path: a, Mode: 0o755, Link: "bin/busybox"})
	}
	return files
}

// HTTPD is httpd:latest on top of busybox: serves /var/www on port 80.
func HTTPD(base Image) (Image, error) {
	layer, err := Layer([]File{{Path: "var/", Mode: 0o755}, {Path: "var/www/", Mode: 0o755},
		{Path: "var/www/index.html", Mode: 0o644, Body: []byte("<html><body><h1>It works!</h1></body></html>\n")}})
	if err != nil {
		return Image{}, fmt.Errorf("bake httpd: %w", err)
	}
	img := base
	img.Names = []string{"httpd:latest"}
	img.Layers = append(slices.Clone(base.Layers), layer)
	img.Config.Cmd = []string{"httpd", "-f", "-h", "/var/www"}
	img.Config.ExposedPorts = map[string]struct{}{"80/tcp": {}}
	// busybox httpd sets no handler for SIGTERM, and the kernel keeps a signal without a handler from a pid 1.
	img.Config.StopSignal = "SIGKILL"
	return img, nil
}
