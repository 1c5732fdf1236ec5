package volume

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// mountFlags are the words of mount(8) that are flags of mount(2): what is set, and what is taken back.
var mountFlags = map[string]struct {
	flag  uintptr
	clear bool
}{
	"defaults": {}, "rw": {unix.MS_RDONLY, true}, "ro": {unix.MS_RDONLY, false},
	"suid": {unix.MS_NOSUID, true}, "nosuid": {unix.MS_NOSUID, false},
	"dev": {unix.MS_NODEV, true}, "nodev": {unix.MS_NODEV, false},
	"exec": {unix.MS_NOEXEC, true}, "noexec": {unix.MS_NOEXEC, false},
	"atime": {unix.MS_NOATIME, true}, "noatime": {unix.MS_NOATIME, false},
	"diratime": {unix.MS_NODIRATIME, true}, "nodiratime": {unix.MS_NODIRATIME, false},
	"relatime": {unix.MS_RELATIME, false}, "strictatime": {unix.MS_STRICTATIME, false},
	"sync": {unix.MS_SYNCHRONOUS, false}, "async": {unix.MS_SYNCHRONOUS, true},
	"bind": {unix.MS_BIND, false}, "rbind": {unix.MS_BIND | unix.MS_REC, false},
}

// wish is one mount as mount(2) takes it.
type wish struct {
	source, kind, data string
	flags              uintptr
}

// CheckOptions refuses options that the driver does not know or that make no whole (errdefs.ErrInvalidArgument, docker's
// words), and those it cannot honour (errdefs.ErrNotImplemented).
func CheckOptions(o map[string]string) error {
	_, err := parse(o)
	return err
}

// parse turns type, device and o into a mount; nil without any.
func parse(o map[string]string) (*wish, error) {
	if len(o) == 0 {
		return nil, nil
	}
	for _, k := range slices.Sorted(maps.Keys(o)) {
		if !slices.Contains([]string{"type", "device", "o", "size"}, k) {
			return nil, fmt.Errorf("invalid option: %q: %w", k, errdefs.ErrInvalidArgument)
		}
	}
	if _, ok := o["size"]; ok {
		return nil, fmt.Errorf("minictl does not support the volume option size yet; for a tmpfs say o=size=%s: %w", o["size"], errdefs.ErrNotImplemented)
	}
	for _, need := range []string{"type", "device"} {
		if _, ok := o[need]; !ok {
			return nil, fmt.Errorf("missing required option: %q: %w", need, errdefs.ErrInvalidArgument)
		}
	}
	w := &wish{source: o["device"], kind: o["type"]}
	var data []string
	for word := range strings.SplitSeq(o["o"], ",") {
		f, ok := mountFlags[word]
		switch {
		case word == "":
		case !ok:
			data = append(data, word)
		case f.clear:
			w.flags &^= f.flag
		default:
			w.flags |= f.flag
		}
	}
	w.data = strings.Join(data, ",")
	return w, w.check()
}

// check leaves what needs no more than this host's own folders and memory.
func (w *wish) check() error {
	switch {
	case w.flags&unix.MS_BIND != 0:
		if !path.IsAbs(w.source) {
			return fmt.Errorf("invalid option: \"device\": %q is not an absolute path: %w", w.source, errdefs.ErrInvalidArgument)
		}
		if w.data != "" {
			return fmt.Errorf("invalid option: \"o\": a bind takes no %q: %w", w.data, errdefs.ErrInvalidArgument)
		}
		w.kind = "none"
		return nil
	case w.kind == "tmpfs":
		return nil
	case w.kind == "none" || w.kind == "bind":
		return fmt.Errorf("missing required option: \"o\": a volume of type %s needs o=bind: %w", w.kind, errdefs.ErrInvalidArgument)
	}
	return fmt.Errorf("minictl does not support volumes of type %s yet; mount it on the host and use -v /host/folder:/folder: %w", w.kind, errdefs.ErrNotImplemented)
}

// Fills tells whether an image's content can be put into it when a container is made: not into a tmpfs, which begins anew
// with each first use, nor into what is mounted read-only.
func (v *Volume) Fills() bool {
	w, err := parse(v.Options)
	return err == nil && (w == nil || w.kind != "tmpfs" && w.flags&unix.MS_RDONLY == 0)
}

// Mount mounts what the volume's options ask for; nil when that is done already or there are none.
func (l *Local) Mount(v *Volume) error {
	w, err := parse(v.Options)
	if err != nil {
		return fmt.Errorf("error while mounting volume '%s': %w", l.Path(v.Name), err)
	}
	if w == nil {
		return nil
	}
	at := l.Path(v.Name)
	if on, err := mountinfo.Mounted(at); err != nil || on {
		return err
	}
	err = unix.Mount(w.source, at, w.kind, w.flags, w.data)
	if err == nil && w.flags&unix.MS_BIND != 0 && w.flags&^uintptr(unix.MS_BIND|unix.MS_REC) != 0 {
		// A new bind has its source's flags, whatever is asked: the kernel wants a second call.
		err = unix.Mount("", at, "", w.flags&^unix.MS_REC|unix.MS_REMOUNT, "")
		if err != nil {
			_ = unix.Unmount(at, unix.MNT_DETACH)
		}
	}
	if err != nil {
		return fmt.Errorf("error while mounting volume '%s': failed to mount local volume: mount %s:%s, flags: 0x%x, data: %s: %w", at, w.source, at, w.flags, w.data, err)
	}
	return nil
}

// Unmount takes Mount back; nil when there is nothing to take back.
func (l *Local) Unmount(v *Volume) error {
	if len(v.Options) == 0 {
		return nil
	}
	at := l.Path(v.Name)
	if on, err := mountinfo.Mounted(at); err != nil || !on {
		return ignoreGone(err)
	}
	// Something of the host's may stand in it, such as a shell; the containers that used it are gone.
	if err := unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount volume %s: %w", v.Name, err)
	}
	return nil
}
