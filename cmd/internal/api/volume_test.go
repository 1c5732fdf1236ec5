package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"
)

type fakeVolume struct {
	VolumeBackend
	list    func(Filters) ([]volume.Volume, error)
	inspect func(name string) (volume.Volume, error)
	create  func(volume.CreateRequest) (volume.Volume, error)
	remove  func(name string, force bool) error
	prune   func(Filters) (volume.PruneReport, error)
}

func (f *fakeVolume) VolumeList(_ context.Context, fl Filters) ([]volume.Volume, error) {
	return f.list(fl)
}
func (f *fakeVolume) VolumeInspect(_ context.Context, name string) (volume.Volume, error) {
	return f.inspect(name)
}
func (f *fakeVolume) VolumeCreate(_ context.Context, req volume.CreateRequest) (volume.Volume, error) {
	return f.create(req)
}
func (f *fakeVolume) VolumeRemove(_ context.Context, name string, force bool) error {
	return f.remove(name, force)
}
func (f *fakeVolume) VolumePrune(_ context.Context, fl Filters) (volume.PruneReport, error) {
	return f.prune(fl)
}

// addVolumes is a host with one volume, data, that container c1 uses.
func (f *fakeVolume) addVolumes() {
	data := volume.Volume{Name: "data", Driver: "local", Mountpoint: "/v/data/_data", Scope: "local"}
	f.list = func(fl Filters) ([]volume.Volume, error) {
		if fl["dangling"]["true"] {
			return nil, nil
		}
		return []volume.Volume{data}, nil
	}
	f.inspect = func(name string) (volume.Volume, error) {
		if name != data.Name {
			return volume.Volume{}, notFound("get %s: no such volume", name)
		}
		return data, nil
	}
	f.create = func(req volume.CreateRequest) (volume.Volume, error) {
		if req.Name == "a/b" {
			return volume.Volume{}, fmt.Errorf("create a/b: invalid: %w", errdefs.ErrInvalidArgument)
		}
		return data, nil
	}
	f.remove = func(name string, force bool) error {
		if name == data.Name {
			return errdefs.ErrConflict.WithMessage("remove data: volume is in use - [c1]")
		}
		if !force {
			return notFound("get %s: no such volume", name)
		}
		return nil
	}
	f.prune = func(fl Filters) (volume.PruneReport, error) {
		if fl["all"]["true"] || fl["all"]["1"] {
			return volume.PruneReport{VolumesDeleted: []string{"data"}, SpaceReclaimed: 7}, nil
		}
		return volume.PruneReport{VolumesDeleted: []string{"fffff"}, SpaceReclaimed: 7}, nil
	}
}

func TestClientVolumes(t *testing.T) {
	f := &fakes{}
	f.v.addVolumes()
	c, ctx := dial(t, serve(t, f)), t.Context()
	made, err := c.VolumeCreate(ctx, client.VolumeCreateOptions{Name: "data"})
	if err != nil || made.Volume.Name != "data" {
		t.Error(made, err)
	}
	if _, err := c.VolumeCreate(ctx, client.VolumeCreateOptions{Name: "a/b"}); !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
	list, err := c.VolumeList(ctx, client.VolumeListOptions{})
	if err != nil || len(list.Items) != 1 || list.Items[0].Mountpoint != "/v/data/_data" {
		t.Error(list, err)
	}
	if v, err := c.VolumeInspect(ctx, "data", client.VolumeInspectOptions{}); err != nil || v.Volume.Scope != "local" {
		t.Error(v, err)
	}
	if _, err := c.VolumeInspect(ctx, "dat", client.VolumeInspectOptions{}); !errdefs.IsNotFound(err) {
		t.Error("a prefix finds a volume:", err)
	}
	if _, err := c.VolumeRemove(ctx, "data", client.VolumeRemoveOptions{}); !errdefs.IsConflict(err) {
		t.Error(err)
	}
	if _, err := c.VolumeRemove(ctx, "nope", client.VolumeRemoveOptions{}); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
	if _, err := c.VolumeRemove(ctx, "nope", client.VolumeRemoveOptions{Force: true}); err != nil {
		t.Error(err)
	}
}

// TestVolumeAnswers are the bodies that the client's own types hide.
func TestVolumeAnswers(t *testing.T) {
	f := &fakes{}
	f.v.addVolumes()
	h := httpVia(t, serve(t, f))
	for _, tt := range []struct {
		method, path, body string
		code               int
		want               string
	}{
		{"GET", `/volumes?filters={"dangling":["true"]}`, "", 200, `{"Volumes":[],"Warnings":[]}`},
		{"GET", "/volumes/data", "", 200, `{"Driver":"local","Labels":null,"Mountpoint":"/v/data/_data","Name":"data","Options":null,"Scope":"local"}`},
		{"POST", "/volumes/create", "{}", 201, `"Name":"data"`},
		{"POST", "/volumes/create", "{", 400, "invalid JSON"},
		{"DELETE", "/volumes/nope?force=1", "", 204, ""},
		{"POST", "/v1.41/volumes/prune", "", 200, `{"VolumesDeleted":["data"],"SpaceReclaimed":7}`},
		{"POST", "/v1.42/volumes/prune", "", 200, `{"VolumesDeleted":["fffff"],"SpaceReclaimed":7}`},
		{"PUT", "/volumes/data", "", 501, "only cluster volumes"},
		{"GET", "/volumes/a/b", "", 404, "page not found"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, "http://d"+strings.ReplaceAll(tt.path, `"`, "%22"), strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		if tt.body != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		resp, err := h.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != tt.code || !strings.Contains(string(b), tt.want) {
			t.Errorf("%s %s: %d %s, want %d %s", tt.method, tt.path, resp.StatusCode, b, tt.code, tt.want)
		}
	}
}
