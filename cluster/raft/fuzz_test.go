package raft

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	hraft "github.com/hashicorp/raft"
	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/cluster/store/memstore"
)

// FuzzCommand: whatever lies in the log is either a valid transaction that
// survives another round, or refused with a class.
func FuzzCommand(f *testing.F) {
	for _, t := range []store.Txn{
		{},
		{ID: "x", If: []store.Cond{{Key: "a", Rev: 1}}, Then: []store.Op{{Key: "b", Value: []byte{0, 255}}, {Key: "c/", Prefix: true}}},
	} {
		b, err := encodeCommand(t)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"v":2}`))
	f.Add([]byte(`{"v":1,"new":true}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		txn, err := decodeCommand(b)
		if err != nil {
			if !errdefs.IsNotImplemented(err) && !errdefs.IsDataLoss(err) {
				t.Fatalf("error without a class: %v", err)
			}
			return
		}
		if err := txn.Validate(); err != nil {
			t.Fatalf("decoded what could not be proposed: %v", err)
		}
		again, err := encodeCommand(txn)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := decodeCommand(again); err != nil || !reflect.DeepEqual(normal(back), normal(txn)) {
			t.Fatalf("%+v became %+v: %v", txn, back, err)
		}
	})
}

// normal makes empty values alike: no bytes are no bytes.
func normal(t store.Txn) store.Txn {
	for i := range t.Then {
		if len(t.Then[i].Value) == 0 {
			t.Then[i].Value = nil
		}
	}
	if len(t.If) == 0 {
		t.If = nil
	}
	if len(t.Then) == 0 {
		t.Then = nil
	}
	return t
}

func testSnapshot() *snapshot {
	return &snapshot{applied: 9, state: memstore.State{Rev: 7,
		Pairs: []store.Pair{{Key: "a", Value: []byte("1"), Rev: 3}, {Key: "b", Value: []byte{0, 255}, Rev: 7}},
		IDs:   []memstore.Applied{{ID: "x", Rev: 3}},
	}}
}

// FuzzSnapshot: nothing but a whole snapshot is taken for one.
func FuzzSnapshot(f *testing.F) {
	var b bytes.Buffer
	if err := testSnapshot().write(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(b.Bytes()[:b.Len()/2])
	f.Add([]byte(`{"format":"minictl store","version":2}`))
	f.Add([]byte(`{"format":"minictl store","version":1,"pairs":1000000000}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := readSnapshot(bytes.NewReader(in))
		if err != nil {
			if !errdefs.IsNotImplemented(err) && !errdefs.IsDataLoss(err) {
				t.Fatalf("error without a class: %v", err)
			}
			return
		}
		var out bytes.Buffer
		if err := s.write(&out); err != nil {
			t.Fatal(err)
		}
		if _, err := readSnapshot(&out); err != nil {
			t.Fatalf("written again: %v", err)
		}
	})
}

// FuzzEntry: a record of the log is what was written, or refused.
func FuzzEntry(f *testing.F) {
	for _, e := range []*hraft.Log{{Index: 1}, entries(5, 5)[0], {Index: 2, Term: 3, Type: hraft.LogNoop, Extensions: []byte("x")}} {
		f.Add(e.Index, encodeEntry(e))
	}
	f.Fuzz(func(t *testing.T, index uint64, rec []byte) {
		var e hraft.Log
		if decodeEntry(indexKey(index), rec, &e) != nil {
			// A fuzzer does not find checksums; give it one.
			if len(rec) < 4 || decodeEntry(indexKey(index), seal(indexKey(index), rec[4:]), &e) != nil {
				return
			}
			rec = seal(indexKey(index), rec[4:])
		}
		if again := encodeEntry(&e); !bytes.Equal(again, rec) {
			t.Fatalf("%x became %x", rec, again)
		}
	})
}

func TestSnapshotFormat(t *testing.T) {
	var b bytes.Buffer
	if err := testSnapshot().write(&b); err != nil {
		t.Fatal(err)
	}
	const want = `{"format":"minictl store","version":1,"revision":7,"applied":9,"pairs":2,"ids":1}
{"k":"a","v":"MQ==","r":3}
{"k":"b","v":"AP8=","r":7}
{"id":"x","r":3}
`
	if got, _, _ := strings.Cut(b.String(), `{"crc32c"`); got != want {
		t.Errorf("snapshot is\n%s\nwant\n%s", got, want)
	}
	back, err := readSnapshot(bytes.NewReader(b.Bytes()))
	if err != nil || !reflect.DeepEqual(back, testSnapshot()) {
		t.Errorf("read back %+v, %v", back, err)
	}
	for i := range b.Len() {
		if _, err := readSnapshot(bytes.NewReader(b.Bytes()[:i])); err == nil && i < b.Len()-1 {
			t.Errorf("the first %d of %d bytes were taken for the whole", i, b.Len())
		}
		broken := bytes.Clone(b.Bytes())
		broken[i] ^= 0x10
		if s, err := readSnapshot(bytes.NewReader(broken)); err == nil && !reflect.DeepEqual(s, testSnapshot()) {
			t.Errorf("a flipped bit in byte %d went unnoticed", i)
		}
	}
}
