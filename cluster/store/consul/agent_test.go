package consul

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// What Consul's agent takes at most (its settings kv_max_value_size, txn_max_req_len; operations are fixed).
const (
	maxValue = 512 << 10
	maxOps   = 64
)

// agent speaks the part of Consul's HTTP API that a journal needs, as its documentation describes it: /v1/kv with
// blocking queries, /v1/txn.
type agent struct {
	mu    sync.Mutex
	index uint64
	keys  map[string]pair
	moved chan struct{} // closed at the next change
}

type pair struct {
	Key                      string
	Value                    []byte
	CreateIndex, ModifyIndex uint64
}

// ServeHTTP implements http.Handler.
func (a *agent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxValue+1))
	if err != nil || len(body) > maxValue {
		http.Error(w, "Value exceeds 524288 byte limit", http.StatusRequestEntityTooLarge)
		return
	}
	key, isKey := strings.CutPrefix(r.URL.Path, "/v1/kv/")
	switch {
	case r.URL.Path == "/v1/txn" && r.Method == http.MethodPut:
		a.txn(w, body)
	case isKey && r.Method == http.MethodGet && r.URL.Query().Has("keys"):
		a.list(w, key)
	case isKey && r.Method == http.MethodGet:
		a.get(w, r, key)
	case isKey && r.Method == http.MethodPut:
		a.mu.Lock()
		a.index++
		a.set(key, body)
		a.tell()
		a.mu.Unlock()
		fmt.Fprint(w, "true")
	default:
		http.Error(w, "not here", http.StatusMethodNotAllowed)
	}
}

func (a *agent) set(key string, value []byte) {
	if a.keys == nil {
		a.keys = map[string]pair{}
	}
	p, ok := a.keys[key]
	if !ok {
		p.CreateIndex = a.index
	}
	p.Key, p.Value, p.ModifyIndex = key, value, a.index
	a.keys[key] = p
}

func (a *agent) tell() {
	if a.moved != nil {
		close(a.moved)
		a.moved = nil
	}
}

// get waits until the index that it would answer is greater than ?index.
func (a *agent) get(w http.ResponseWriter, r *http.Request, key string) {
	known, _ := strconv.ParseUint(r.URL.Query().Get("index"), 10, 64)
	wait, err := time.ParseDuration(r.URL.Query().Get("wait"))
	if err != nil {
		wait = 5 * time.Minute
	}
	end := time.NewTimer(wait)
	defer end.Stop()
	for {
		a.mu.Lock()
		p, ok := a.keys[key]
		index := p.ModifyIndex
		if !ok {
			index = max(a.index, 1) // of the surroundings
		}
		if a.moved == nil {
			a.moved = make(chan struct{})
		}
		moved := a.moved
		a.mu.Unlock()
		if index > known {
			answer(w, index, p, ok)
			return
		}
		select {
		case <-moved:
		case <-end.C:
			answer(w, index, p, ok)
			return
		case <-r.Context().Done():
			return
		}
	}
}

func answer(w http.ResponseWriter, index uint64, p pair, ok bool) {
	w.Header().Set("X-Consul-Index", strconv.FormatUint(index, 10))
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_ = json.NewEncoder(w).Encode([]pair{p})
}

func (a *agent) list(w http.ResponseWriter, prefix string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	keys := slices.DeleteFunc(slices.Sorted(maps.Keys(a.keys)), func(k string) bool { return !strings.HasPrefix(k, prefix) })
	if len(keys) == 0 {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_ = json.NewEncoder(w).Encode(keys)
}

type txnOp struct {
	KV struct {
		Verb, Key string
		Value     []byte
		Index     uint64
	}
}

type txnError struct {
	OpIndex int
	What    string
}

func (a *agent) txn(w http.ResponseWriter, body []byte) {
	var ops []txnOp
	if err := json.Unmarshal(body, &ops); err != nil {
		http.Error(w, "Failed to parse body: "+err.Error(), http.StatusBadRequest)
		return
	}
	if len(ops) > maxOps {
		http.Error(w, fmt.Sprintf("Transaction contains too many operations (%d > %d)", len(ops), maxOps), http.StatusRequestEntityTooLarge)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, op := range ops {
		if have := a.keys[op.KV.Key].ModifyIndex; op.KV.Verb == "cas" && have != op.KV.Index {
			w.WriteHeader(http.StatusConflict)
			_ = json.NewEncoder(w).Encode(map[string]any{"Results": nil, "Errors": []txnError{{i, fmt.Sprintf("failed to set key %q, index is stale", op.KV.Key)}}})
			return
		}
	}
	a.index++
	results := []map[string]pair{}
	for _, op := range ops {
		if op.KV.Verb == "delete" {
			delete(a.keys, op.KV.Key)
			continue
		}
		a.set(op.KV.Key, op.KV.Value)
		p := a.keys[op.KV.Key]
		p.Value = nil
		results = append(results, map[string]pair{"KV": p})
	}
	a.tell()
	_ = json.NewEncoder(w).Encode(map[string]any{"Results": results, "Errors": nil})
}
