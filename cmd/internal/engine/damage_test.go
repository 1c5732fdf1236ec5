package engine

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/runtime/container"
)

// TestDamagedState tears, zeroes and cuts every page of state.db, as a loss of power may. It opens with all that was in
// it, or it is refused by a sentence that names the file and what to type; it never panics, and never opens empty.
func TestDamagedState(t *testing.T) {
	const page, containers = 4096, 40
	dir := t.TempDir()
	path := filepath.Join(dir, "state.db")
	st, err := openState(path)
	if err != nil {
		t.Fatal(err)
	}
	for range containers {
		id := newID()
		if err := st.put("containers", id, record{Spec: container.Spec{ID: id, Name: strings.Repeat("n", 200)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "containers", "one"), 0o700); err != nil {
		t.Fatal(err)
	}
	refused := 0
	check := func(what string, b []byte, least int) {
		t.Helper()
		// Elsewhere each time: this process may still hold what it has given up half way.
		path := filepath.Join(t.TempDir(), "state.db")
		if err := os.MkdirAll(filepath.Join(filepath.Dir(path), "containers", "one"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		st, err := openState(path)
		if err != nil {
			refused++
			if !errdefs.IsDataLoss(err) || !strings.Contains(err.Error(), "mv "+path) {
				t.Errorf("%s: %v", what, err)
			}
			return
		}
		n := 0
		if err := each(st, "containers", func(record) { n++ }); err != nil || n < least {
			t.Errorf("%s: opened with %d of %d containers, %v", what, n, containers, err)
		}
		if err := st.Close(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for at := 0; at < len(whole); at += page {
		zeroed, torn, noise := slices.Clone(whole), slices.Clone(whole), slices.Clone(whole)
		clear(zeroed[at : at+page])
		clear(torn[at+page/2 : at+page])
		for i := at; i < at+page; i++ {
			noise[i] ^= 0x5a
		}
		least := containers
		if at < 2*page { // the two roots: with one of them all but the last change is there
			least--
		}
		n := strconv.Itoa(at / page)
		check("zeroed page "+n, zeroed, least)
		check("torn page "+n, torn, least)
		check("garbled page "+n, noise, least)
		check("cut before page "+n, whole[:at], containers)
	}
	if refused == 0 {
		t.Error("nothing was refused")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := openState(path); !errdefs.IsDataLoss(err) || !strings.Contains(err.Error(), "it is missing") {
		t.Errorf("missing: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "containers")); err != nil {
		t.Fatal(err)
	}
	check("as it was", whole, containers)
}
