package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	mobyvolume "github.com/moby/moby/api/types/volume"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/minictl/minictl/cmd/internal/api"
	"github.com/minictl/minictl/cmd/internal/feed"
	"github.com/minictl/minictl/runtime/container"
	"github.com/minictl/minictl/runtime/volume"
)

// volumeEngine is as much of an engine as volumes need.
func volumeEngine(t *testing.T, dir string) *Engine {
	t.Helper()
	st, err := openState(filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return &Engine{
		log: slog.New(slog.NewTextHandler(io.Discard, nil)), state: st, events: feed.New(), volumes: newVolumes(filepath.Join(dir, "volumes")),
		boxes: map[string]*box{}, names: map[string]string{},
	}
}

// user is a container with volumes.
func user(id string, anonymous bool, volumes ...string) *container.Spec {
	s := &container.Spec{ID: id}
	for _, v := range volumes {
		s.Mounts = append(s.Mounts, container.Mount{Type: "volume", Name: v, Target: "/" + v, Anonymous: anonymous})
	}
	return s
}

func names(t *testing.T, e *Engine, f api.Filters) string {
	t.Helper()
	list, err := e.VolumeList(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, v := range list {
		out = append(out, v.Name)
	}
	return strings.Join(out, " ")
}

func TestVolumeUse(t *testing.T) {
	dir := t.TempDir()
	e := volumeEngine(t, dir)
	var undone undo
	if err := errors.Join(e.takeVolumes(user("c1", false, "both", "one"), &undone), e.takeVolumes(user("c2", true, "both", "anon"), &undo{})); err != nil {
		t.Fatal(err)
	}
	if got := names(t, e, nil); got != "anon both one" {
		t.Error(got)
	}
	if err := e.VolumeRemove(t.Context(), "both", true); !errdefs.IsConflict(err) || err.Error() != "remove both: volume is in use - [c1, c2]" {
		t.Error(err)
	}
	// A failed create takes back what it made and nobody else uses.
	undone.run(t.Context())
	if got := names(t, e, nil); got != "anon both" {
		t.Errorf("after the undo: %s", got)
	}
	e.dropVolumes(user("c2", true, "both", "anon"), true)
	if got := names(t, e, nil); got != "" {
		t.Errorf("after rm -v: %s", got)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "volumes")); err != nil || len(left) > 0 {
		t.Errorf("on the disk: %v", left)
	}
	if err := e.VolumeRemove(t.Context(), "both", false); !errdefs.IsNotFound(err) || err.Error() != "get both: no such volume" {
		t.Error(err)
	}
	if err := e.VolumeRemove(t.Context(), "both", true); err != nil {
		t.Error(err)
	}
}

func TestVolumePrune(t *testing.T) {
	e := volumeEngine(t, t.TempDir())
	for _, v := range []mobyvolume.CreateRequest{{Name: "red", Labels: map[string]string{"colour": "red"}}, {Name: "blue", Labels: map[string]string{"colour": "blue"}}, {Name: "bare"}, {Name: "used"}} {
		if _, err := e.VolumeCreate(t.Context(), v); err != nil {
			t.Fatal(err)
		}
	}
	anonymous, err := e.VolumeCreate(t.Context(), mobyvolume.CreateRequest{})
	if err != nil || len(anonymous.Name) != 64 {
		t.Fatal(anonymous, err)
	}
	if err := e.takeVolumes(user("c1", false, "used"), &undo{}); err != nil {
		t.Fatal(err)
	}
	set := func(v ...string) map[string]bool {
		m := map[string]bool{}
		for _, s := range v {
			m[s] = true
		}
		return m
	}
	all := set("1")
	for _, tt := range []struct {
		f    api.Filters
		want string
	}{
		{nil, anonymous.Name},
		{nil, ""},
		{api.Filters{"all": set("false")}, ""},
		{api.Filters{"all": all, "label": set("colour=red")}, "red"},
		{api.Filters{"all": all, "label!": set("colour")}, "bare"},
		{api.Filters{"all": all, "label!": set("colour", "size")}, "blue"}, // it has not all of them
	} {
		r, err := e.VolumePrune(t.Context(), tt.f)
		if got := strings.Join(r.VolumesDeleted, " "); err != nil || got != tt.want {
			t.Errorf("%v: %q, %v, want %q", tt.f, got, err, tt.want)
		}
	}
	for _, bad := range []api.Filters{{"colour": all}, {"all": set("maybe")}, {"all": set("0", "1")}} {
		if _, err := e.VolumePrune(t.Context(), bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// TestVolumeRaces makes, uses and removes one name from many sides: a volume that somebody uses is never removed, and no
// user is left without its folder.
func TestVolumeRaces(t *testing.T) {
	e := volumeEngine(t, t.TempDir())
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 40 {
				s := user(fmt.Sprintf("c%d-%d", i, n), false, "data")
				if err := e.takeVolumes(s, &undo{}); err != nil {
					t.Error(err)
					return
				}
				if _, err := os.Stat(e.volumes.local.Path("data")); err != nil {
					t.Errorf("in use, but: %v", err)
				}
				e.dropVolumes(s, false)
				if err := e.VolumeRemove(context.Background(), "data", true); err != nil && !errdefs.IsConflict(err) && !errdefs.IsNotFound(err) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := e.VolumeRemove(t.Context(), "data", true); err != nil {
		t.Error(err)
	}
	if got := names(t, e, nil); got != "" {
		t.Error(got)
	}
}

// TestVolumeSweep finishes what an earlier daemon began.
func TestVolumeSweep(t *testing.T) {
	dir := t.TempDir()
	e := volumeEngine(t, dir)
	for _, v := range []volume.Volume{{Name: "whole"}, {Name: "going", Removing: true}, {Name: "lost"}} {
		if _, err := e.volumes.local.Ensure(v.Name); err != nil {
			t.Fatal(err)
		}
		if err := e.state.put("volumes", v.Name, v); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"whole/_data/f", "going/_data/f", "whole/_fill"} {
		if err := os.WriteFile(filepath.Join(dir, "volumes", f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(filepath.Join(dir, "volumes/lost")); err != nil {
		t.Fatal(err)
	}
	e.boxes["c1"] = &box{id: "c1", spec: *user("c1", false, "whole")}
	if err := e.restoreVolumes(); err != nil {
		t.Fatal(err)
	}
	e.sweepVolumes()
	if got := names(t, e, nil); got != "lost whole" {
		t.Error(got)
	}
	if got := names(t, e, api.Filters{"dangling": {"true": true}}); got != "lost" {
		t.Errorf("unused: %s", got)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "volumes/*/*"))
	if !slices.Equal(files, []string{filepath.Join(dir, "volumes/lost/_data"), filepath.Join(dir, "volumes/whole/_data")}) {
		t.Errorf("on the disk: %v", files)
	}
	send, err := e.events.Listen("1", fmt.Sprint(time.Now().Unix()), nil)
	if err != nil {
		t.Fatal(err)
	}
	past := make(chan events.Message, 2)
	send(t.Context(), past)
	if m := <-past; len(past) != 0 || m.Action != events.ActionDestroy || m.Actor.ID != "going" {
		t.Errorf("event %+v, and %d more", m, len(past))
	}
}

// TestVolumeRemoveFails leaves a volume that can still be used, and does not remove it behind somebody's back later.
func TestVolumeRemoveFails(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	dir := t.TempDir()
	e := volumeEngine(t, dir)
	if _, err := e.VolumeCreate(t.Context(), mobyvolume.CreateRequest{Name: "data"}); err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(dir, "volumes/data/_data")
	if err := unix.Mount("none", at, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	if err := e.VolumeRemove(t.Context(), "data", false); !errdefs.IsConflict(err) {
		t.Error(err)
	}
	var kept []volume.Volume
	if err := each(e.state, "volumes", func(v volume.Volume) { kept = append(kept, v) }); err != nil || len(kept) != 1 || kept[0].Removing {
		t.Error(kept, err)
	}
	if err := errors.Join(unix.Unmount(at, unix.MNT_DETACH), e.takeVolumes(user("c1", false, "data"), &undo{})); err != nil {
		t.Error(err)
	}
}

// TestMigration brings the schema of the first version up to date: binds are resolved, nothing else changes.
func TestMigration(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	old := map[string]string{
		"c1": `{"spec":{"id":"c1","name":"web","config":{"Volumes":{"/image":{}}},"hostConfig":{"Binds":["/a:/b:ro","/a:/t:nocopy"],"Tmpfs":{"/t":""},"Mounts":[{"Type":"bind","Source":"/c","Target":"/d"},{"Type":"tmpfs","Target":"/e"}]}},"status":{"state":"running","pid":7}}`,
		"c2": `{"spec":{"id":"c2","name":"bare","hostConfig":{}},"status":{"state":"exited","exitCode":3}}`,
	}
	err = db.Update(func(tx *bolt.Tx) error {
		meta, err1 := tx.CreateBucket([]byte("meta"))
		c, err2 := tx.CreateBucket([]byte("containers"))
		n, err3 := tx.CreateBucket([]byte("networks"))
		if err := errors.Join(err1, err2, err3, meta.Put([]byte("version"), []byte("1")), meta.Put([]byte("identity"), []byte("me")), n.Put([]byte("n1"), []byte(`{"id":"n1"}`))); err != nil {
			return err
		}
		for k, v := range old {
			if err := c.Put([]byte(k), []byte(v)); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing to do
		st, err := openState(path)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]record{}
		if err := each(st, "containers", func(r record) { got[r.Spec.ID] = r }); err != nil {
			t.Fatal(err)
		}
		var targets []string
		for _, m := range got["c1"].Spec.Mounts {
			targets = append(targets, fmt.Sprintf("%s%s %v %v", m.Source, m.Target, m.ReadOnly, m.Create))
		}
		if want := []string{"/a/b true true", "/a/t false true", "/c/d false false"}; !slices.Equal(targets, want) {
			t.Errorf("mounts %v, want %v", targets, want)
		}
		if got["c1"].Status.Pid != 7 || got["c2"].Status.ExitCode != 3 || len(got["c2"].Spec.Mounts) != 0 {
			t.Errorf("records: %+v", got)
		}
		if id, err := st.identity(); id != "me" || err != nil {
			t.Error(id, err)
		}
		var nets int
		if err := errors.Join(each(st, "networks", func(Network) { nets++ }), st.Close()); err != nil || nets != 1 {
			t.Error(nets, err)
		}
	}
	setVersion(t, path, "99")
	if _, err := openState(path); err == nil || !strings.Contains(err.Error(), "schema version 99 is newer than this minictl's "+stateVersion) {
		t.Error(err)
	}
	setVersion(t, path, "x")
	if _, err := openState(path); err == nil || !strings.Contains(err.Error(), `schema version "x" is none of minictl's`) {
		t.Error(err)
	}
}

func setVersion(t *testing.T, path, v string) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte("version"), []byte(v)) })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}
