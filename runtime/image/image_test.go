package image

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	idA = "sha256:aaaa111111111111111111111111111111111111111111111111111111111111"
	idB = "sha256:aaaa222222222222222222222222222222222222222222222222222222222222"
	dig = "@sha256:cccc333333333333333333333333333333333333333333333333333333333333"
)

func TestNames(t *testing.T) {
	for _, c := range []struct{ in, stored, shown string }{
		{"busybox", "docker.io/library/busybox:latest", "busybox:latest"},
		{"docker.io/busybox:1", "docker.io/library/busybox:1", "busybox:1"},
		{"team/app", "docker.io/team/app:latest", "team/app:latest"},
		{"localhost:5000/app:1", "localhost:5000/app:1", "localhost:5000/app:1"},
		{"app:1" + dig, "docker.io/library/app" + dig, "app" + dig},
	} {
		got, err := Normalize(c.in)
		if err != nil || got != c.stored || Familiar(got) != c.shown {
			t.Errorf("%s: %s, %s, %v", c.in, got, Familiar(got), err)
		}
	}
	for _, bad := range []string{"", "Upper", "a b", "x:", "http://x/y"} {
		_, err := Normalize(bad)
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := Normalize("a b"); err.Error() != "invalid reference format: invalid argument" {
		t.Errorf("docker's words: %v", err)
	}
}

func TestFind(t *testing.T) {
	all := []Image{{ID: idA, RepoTags: []string{"a:latest", "aaaa2:latest"}, RepoDigests: []string{"a" + dig}}, {ID: idB}}
	for _, c := range []struct {
		ref, want string
		byID      bool
		err       string
	}{
		{"a", idA, false, ""},
		{"a:latest", idA, false, ""},
		{"docker.io/library/a", idA, false, ""},
		{"a" + dig, idA, false, ""},
		{"a:other" + dig, idA, false, ""},
		{idB, idB, true, ""},
		{strings.TrimPrefix(idB, "sha256:"), idB, true, ""},
		{"aaaa1", idA, true, ""},
		{"sha256:aaaa22", idB, true, ""},
		{"aaaa2", idA, false, ""}, // a name wins over a prefix
		{"aaaa", "", false, "No such image: aaaa:latest (the prefix of 2 image IDs)"},
		{"b:1", "", false, "No such image: b:1"},
		{"sha256:bb", "", false, "No such image: sha256:bb"},
		{strings.Repeat("0", 64), "", false, "No such image: " + strings.Repeat("0", 64)},
	} {
		img, byID, err := Find(all, c.ref)
		if c.err != "" {
			if err == nil || err.Error() != c.err || !errdefs.IsNotFound(err) {
				t.Errorf("%s: %v, want %s", c.ref, err, c.err)
			}
			continue
		}
		if err != nil || img.ID != c.want || byID != c.byID {
			t.Errorf("%s: %s, %v, %v", c.ref, img.ID, byID, err)
		}
	}
	if _, _, err := Find(all, "a b"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("bad name: %v", err)
	}
}

func TestPlanRemoval(t *testing.T) {
	img := func(tags string, digests ...string) []Image {
		return []Image{{ID: idA, RepoTags: strings.Fields(tags), RepoDigests: digests}}
	}
	for _, c := range []struct {
		name  string
		all   []Image
		ref   string
		force bool
		users []User
		want  string // steps, or the error
	}{
		{"last name", img("a:1"), "a:1", false, nil, "[{a:1 } { " + idA + "}]"},
		{"one of two names", img("a:1 b:1"), "b:1", false, nil, "[{b:1 }]"},
		{"one of two names, in use", img("a:1 b:1"), "b:1", false, []User{{ID: "c1"}}, "[{b:1 }]"},
		{"last name with its digest", img("a:1", "a"+dig), "a:1", false, nil, "[{a:1 } {a" + dig + " } { " + idA + "}]"},
		{"digest of a tag that stays", img("a:1 a:2", "a"+dig), "a:1", false, nil, "[{a:1 }]"},
		{"the digest alone", img("a:1", "a"+dig), "a" + dig, false, nil, "[{a" + dig + " }]"},
		{"last name, in use", img("a:1"), "a:1", false, []User{{ID: "0123456789abcdef"}},
			`conflict: unable to remove repository reference "a:1" (must force) - container 0123456789ab is using its referenced image aaaa11111111`},
		{"last name, in use, forced", img("a:1"), "a:1", true, []User{{ID: "c"}}, "[{a:1 }]"},
		{"by ID", img("a:1", "a"+dig), "aaaa", false, nil, "[{a:1 } {a" + dig + " } { " + idA + "}]"},
		{"by ID, two names", img("a:1 a:2"), "aaaa", false, nil,
			"conflict: unable to delete aaaa11111111 (must be forced) - image is referenced in multiple repositories"},
		{"by ID, two names, forced", img("a:1 a:2"), idA, true, nil, "[{a:1 } {a:2 } { " + idA + "}]"},
		{"by ID, in use", img("a:1"), "aaaa", false, []User{{ID: "c"}},
			"conflict: unable to delete aaaa11111111 (must be forced) - image is being used by stopped container c"},
		{"by ID, in use, forced", img("a:1"), "aaaa", true, []User{{ID: "c"}}, "[{a:1 } { " + idA + "}]"},
		{"by ID, running", img("a:1 a:2"), "aaaa", true, []User{{ID: "c"}, {ID: "0123456789abcdef", Running: true}},
			"conflict: unable to delete aaaa11111111 (cannot be forced) - image is being used by running container 0123456789ab"},
		{"last name, running, forced", img("a:1"), "a:1", true, []User{{ID: "c", Running: true}}, "[{a:1 }]"},
		{"dangling", img(""), "aaaa", false, nil, "[{ " + idA + "}]"},
		{"nothing", nil, "a", false, nil, "No such image: a:latest"},
	} {
		r, err := PlanRemoval(c.all, c.ref, c.force, func(string) []User { return c.users })
		got := fmt.Sprint(r.Steps())
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
		if err != nil && !errdefs.IsConflict(err) && !errdefs.IsNotFound(err) {
			t.Errorf("%s: class of %v", c.name, err)
		}
	}
}

func TestChange(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{`CMD ["sh","-c","x"]`, `Cmd:[sh -c x]`},
		{`cmd echo $HOME`, `Cmd:[/bin/sh -c echo $HOME]`},
		{`ENTRYPOINT ["/e"]`, `Entrypoint:[/e]`},
		{`ENV A=1 B="two words" C=x\ y`, `Env:[OLD=1 A=1 B=two words C=x y]`},
		{`ENV OLD the rest`, `Env:[OLD=the rest]`},
		{`LABEL a.b='c d'`, `Labels:map[a.b:c d]`},
		{`EXPOSE 80 53/UDP 8000-8002/sctp`, `ExposedPorts:map[53/udp:{} 80/tcp:{} 8000/sctp:{} 8001/sctp:{} 8002/sctp:{}]`},
		{`USER 1:2`, `User:1:2`},
		{`WORKDIR /w`, `WorkingDir:/w`},
		{`VOLUME ["/a b"]`, `Volumes:map[/a b:{}]`},
		{`STOPSIGNAL SIGINT`, `StopSignal:SIGINT`},
	} {
		conf := ocispec.ImageConfig{Env: []string{"OLD=1"}}
		if err := Change(&conf, []string{"", c.line}); err != nil {
			t.Errorf("%s: %v", c.line, err)
		}
		if got := fmt.Sprintf("%+v", conf); !strings.Contains(got, c.want) {
			t.Errorf("%s: %s, want %s", c.line, got, c.want)
		}
	}
	for _, bad := range []string{"RUN x", "CMD", "ENV A", `ENV A="x`, "ENV A=1 B", "EXPOSE 0", "EXPOSE x", "EXPOSE 2-1", "EXPOSE 80/ip", "LABEL =x"} {
		if err := Change(&ocispec.ImageConfig{}, []string{bad}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestParseAuth(t *testing.T) {
	js := `{"username":"u","password":"ÿÿ>"}`
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		a, err := ParseAuth(enc.EncodeToString([]byte(js)))
		if err != nil || a == nil || a.Password != "ÿÿ>" {
			t.Errorf("%v, %v", a, err)
		}
	}
	for _, none := range []string{"", "e30=", "e30"} {
		if a, err := ParseAuth(none); a != nil || err != nil {
			t.Errorf("%q: %v, %v", none, a, err)
		}
	}
	for _, bad := range []string{"!", "YQ=="} {
		if _, err := ParseAuth(bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestCopyArchive(t *testing.T) {
	for _, c := range []struct {
		h  tar.Header
		ok bool
	}{
		{tar.Header{Name: "./a/b", Typeflag: tar.TypeReg}, true},
		{tar.Header{Name: "a/..", Typeflag: tar.TypeDir}, true},
		{tar.Header{Name: "a/../..", Typeflag: tar.TypeDir}, false},
		{tar.Header{Name: "/a", Typeflag: tar.TypeReg}, false},
		{tar.Header{Name: "a/b", Typeflag: tar.TypeSymlink, Linkname: "../c"}, true},
		{tar.Header{Name: "a/b", Typeflag: tar.TypeSymlink, Linkname: "../../c"}, false},
		{tar.Header{Name: "a/b", Typeflag: tar.TypeSymlink, Linkname: "/c"}, false},
		{tar.Header{Name: "a/b", Typeflag: tar.TypeLink, Linkname: "c"}, true},
		{tar.Header{Name: "a/b", Typeflag: tar.TypeLink, Linkname: "../c"}, false},
		{tar.Header{Name: "a", Typeflag: tar.TypeFifo}, false},
		{tar.Header{Name: "a", Typeflag: tar.TypeReg, PAXRecords: map[string]string{"MINE.x": "1"}}, true},
	} {
		var in, out bytes.Buffer
		w := tar.NewWriter(&in)
		if err := errors.Join(w.WriteHeader(&c.h), w.Close()); err != nil {
			t.Fatal(err)
		}
		if err := CopyArchive(&out, &in); (err == nil) != c.ok || err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s -> %s: %v", c.h.Name, c.h.Linkname, err)
		}
	}
}

// A sparse entry, as GNU tar -S writes it: 512 bytes that stand for a terabyte.
func TestCopyArchiveRefusesSparse(t *testing.T) {
	var in bytes.Buffer
	file := filepath.Join(t.TempDir(), "big")
	f, err := os.Create(file)
	if err == nil {
		err = errors.Join(f.Truncate(1<<40), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"gnu", "posix"} {
		cmd := exec.Command("tar", "-S", "--format="+format, "-c", "-C", filepath.Dir(file), "big")
		if cmd.Stdout = &in; cmd.Run() != nil {
			t.Fatal("tar -S failed")
		}
		if err := CopyArchive(io.Discard, &in); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", format, err)
		}
		in.Reset()
	}
}

// Names come from outside; what is stored must read back as itself.
func FuzzParseName(f *testing.F) {
	for _, s := range []string{"busybox", "a:1" + dig, "[::1]:5000/x", "sha256:aa", "-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		stored, err := Normalize(s)
		if err != nil {
			return
		}
		if again, err := Normalize(stored); err != nil || again != stored {
			t.Errorf("%q is stored as %q, which reads as %q, %v", s, stored, again, err)
		}
		if again, err := Normalize(Familiar(stored)); err != nil || again != stored {
			t.Errorf("%q is shown as %q, which reads as %q, %v", stored, Familiar(stored), again, err)
		}
	})
}

func FuzzChange(f *testing.F) {
	for _, s := range []string{`ENV A="b c" D=\`, "EXPOSE 1-65535", `CMD ["a"`, "LABEL '"} {
		f.Add(s)
	}
	f.Fuzz(func(_ *testing.T, s string) { _ = Change(&ocispec.ImageConfig{}, []string{s}) })
}

func FuzzParseAuth(f *testing.F) {
	f.Add("e30=")
	f.Fuzz(func(_ *testing.T, s string) { _, _ = ParseAuth(s) })
}

func FuzzCopyArchive(f *testing.F) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "a", Size: 1}), w.Flush()); err == nil {
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		if CopyArchive(&out, bytes.NewReader(in)) != nil {
			return
		}
		// What was let through is let through again.
		if err := CopyArchive(new(bytes.Buffer), &out); err != nil {
			t.Errorf("second reading: %v", err)
		}
	})
}
