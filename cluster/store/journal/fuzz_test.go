package journal

import "testing"

// FuzzDecode: whatever lies in the external store, a host that reads it goes on, and applies nothing it should not.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"v":1,"journal":"J","index":7,"snapshot":{"index":5,"name":"N","parts":2}}`,
		`{"v":1,"by":"a","txn":{"If":null,"Then":[{"Key":"k","Value":"eA=="}],"ID":"i"}}`,
		`{"v":1,"by":"a","name":"N","parts":2}`,
		`{"v":1,"journal":"J","index":7,"state":{"Rev":7,"Pairs":[{"Key":"k","Value":"eA==","Rev":7}],"IDs":[{"ID":"i","Rev":7}]}}`,
		`{"If":null,"Then":[{"Key":"k"}],"ID":"i"}`, `{"v":2}`, `{`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := decodeHead(b); err == nil && (h.Index == 0 || h.Journal == "" || h.oldest() > h.Index) {
			t.Errorf("head %+v was accepted", h)
		}
		if e, err := decodeEntry(b); err == nil && (e.Txn == nil) == (e.Parts == 0) {
			t.Errorf("entry %+v was accepted", e)
		}
		if txn, err := decodeTxn(b); err == nil && (txn.ID == "" || txn.Validate() != nil) {
			t.Errorf("transaction %+v was accepted", txn)
		}
		_, _ = decodeImage(b)
		_, _ = numberOf(string(b))
	})
}
