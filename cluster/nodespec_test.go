package cluster

import (
	"encoding/json"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/cluster/store/memstore"
)

// TestNodeSpec: of two who change a node after the same look, the second has to look again.
func TestNodeSpec(t *testing.T) {
	s := memstore.New()
	if _, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{{Key: nodeKey("n1"), Value: []byte("{}")}}}); err != nil {
		t.Fatal(err)
	}
	write := func(rev store.Revision, label string) error {
		return PutNodeSpec(t.Context(), s, "n1", NodeSpec{Labels: map[string]string{"zone": label}, Rev: rev})
	}
	if err := write(0, "a"); err != nil {
		t.Fatal(err)
	}
	specs, err := NodeSpecs(t.Context(), s)
	if err != nil || specs["n1"].Labels["zone"] != "a" || specs["n1"].Rev == 0 {
		t.Fatalf("%+v, %v", specs, err)
	}
	if err := write(0, "b"); !errdefs.IsConflict(err) {
		t.Errorf("from an old look: %v", err)
	}
	if err := write(specs["n1"].Rev, "c"); err != nil {
		t.Error(err)
	}
	if err := PutNodeSpec(t.Context(), s, "n2", NodeSpec{}); !errdefs.IsNotFound(err) {
		t.Errorf("a node that is none: %v", err)
	}
	if specs, err = NodeSpecs(t.Context(), s); err != nil || len(specs) != 1 || specs["n1"].Labels["zone"] != "c" {
		t.Errorf("%+v, %v", specs, err)
	}
}

// FuzzNodeSpecs: whatever stands in the Store, reading it ends in a spec or an error.
func FuzzNodeSpecs(f *testing.F) {
	f.Add([]byte(`{"labels":{"a":"b"}}`))
	f.Add([]byte(`{"labels":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := memstore.New()
		if _, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{{Key: nodeSpecKey("n"), Value: b}}}); err != nil {
			t.Skip(err)
		}
		specs, err := NodeSpecs(t.Context(), s)
		if err == nil && !json.Valid(b) {
			t.Errorf("%q was read: %v", b, specs)
		}
	})
}
