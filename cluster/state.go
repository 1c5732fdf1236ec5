package cluster

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/identity"
	"github.com/minictl/minictl/cluster/store"
)

const stateVersion = 1

// state is cluster.json: what this host must know before it can ask anybody.
type state struct {
	Version     int        `json:"version"`
	Cluster     string     `json:"cluster"` // UUID
	Epoch       string     `json:"epoch"`
	Past        []string   `json:"past,omitempty"` // epochs before this one, see transport.Fence
	Clustered   bool       `json:"clustered"`
	Store       string     `json:"store,omitempty"`      // address of the external store that decides; empty: the hosts do
	Reset       bool       `json:"reset,omitempty"`      // a Leave was under way: forget everything before anything else
	Leaving     bool       `json:"leaving,omitempty"`    // a Leave may have told the others: it goes on until this host is alone
	Recovering  bool       `json:"recovering,omitempty"` // a Recover was under way: the replica is to be the only one
	Rejoining   bool       `json:"rejoining,omitempty"`  // a Rejoin was under way: the replica is of another epoch
	Unnoted     bool       `json:"unnoted,omitempty"`    // this host has taken over, and the Store does not tell of it yet
	Taken       []sideLeft `json:"taken,omitempty"`      // what this host has taken over, until the Store tells of it
	Given       []sideLeft `json:"given,omitempty"`      // what it has given up to join again, until this host is Settled
	Authority   uint64     `json:"authority,omitempty"`  // generation of the authorities that the files in identity are of, see roots
	Incarnation uint64     `json:"incarnation"`          // of the own records, grows with every start
	Self        Node       `json:"self,omitzero"`
	// Interfaces are those that have Self's addresses, or had them last.
	Interfaces map[netip.Addr]string `json:"interfaces,omitempty"`
	Keys       [][]byte              `json:"keys,omitempty"`  // gossip keys: a restarted host must not need anybody to read them
	Nodes      []Node                `json:"nodes,omitempty"` // members known, this host among them
}

// sideLeft is an epoch that a host has left behind, and how much of what was decided in it the host knew.
type sideLeft struct {
	Epoch   string         `json:"epoch"`
	Decided store.Revision `json:"decided"`
}

func freshState() state {
	return state{Version: stateVersion, Cluster: newUUID(), Epoch: "1." + randomHex(4)}
}

// newUUID makes a random UUID (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails, says its documentation
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	s := hex.EncodeToString(b[:])
	return strings.Join([]string{s[:8], s[8:12], s[12:16], s[16:20], s[20:]}, "-")
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// files are the paths below Config.Dir.
type files struct{ dir string }

func (f files) state() string    { return filepath.Join(f.dir, "cluster.json") }
func (f files) records() string  { return filepath.Join(f.dir, "records.json") }
func (f files) others() string   { return filepath.Join(f.dir, "others.json") }
func (f files) identity() string { return filepath.Join(f.dir, "identity") }
func (f files) raft() string     { return filepath.Join(f.dir, "raft") }
func (f files) external() string { return filepath.Join(f.dir, "store.json") }

// load reads cluster.json; a host without one is alone in a cluster of its own.
func (f files) load() (state, error) {
	b, err := os.ReadFile(f.state())
	if errors.Is(err, fs.ErrNotExist) {
		return freshState(), nil
	}
	if err != nil {
		return state{}, fmt.Errorf("read cluster state: %w", err)
	}
	st, err := decodeState(b)
	if err != nil {
		return state{}, fmt.Errorf("read %s: %w", f.state(), err)
	}
	if st.Reset {
		return f.reset()
	}
	return st, nil
}

func decodeState(b []byte) (state, error) {
	var st state
	if err := json.Unmarshal(b, &st); err != nil {
		return state{}, fmt.Errorf("decode cluster state: %w: %w", err, errdefs.ErrDataLoss)
	}
	if st.Version != stateVersion {
		return state{}, fmt.Errorf("decode cluster state: version %d, this minictl knows %d: %w", st.Version, stateVersion, errdefs.ErrFailedPrecondition)
	}
	return st, nil
}

func (f files) save(st state) error {
	b, err := json.MarshalIndent(st, "", "\t")
	if err != nil {
		return fmt.Errorf("encode cluster state: %w", err)
	}
	return identity.WriteFile(f.state(), b)
}

// reset forgets cluster, identity, replica and records. cluster.json says that it is going on until it is done, so that a
// crash in between does not leave half a member.
func (f files) reset() (state, error) {
	if err := f.save(state{Version: stateVersion, Reset: true}); err != nil {
		return state{}, err
	}
	if err := errors.Join(os.RemoveAll(f.raft()), removeFile(f.external()), identity.Remove(f.identity()), removeFile(f.records()), removeFile(f.others()), removeFile(f.before())); err != nil {
		return state{}, fmt.Errorf("forget the cluster: %w", err)
	}
	st := freshState()
	return st, f.save(st)
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// loadRecords reads the own records of the last run. They are only a bridge until the engine publishes what runs, so
// unreadable ones are none.
func (f files) loadRecords() ([]Record, error) {
	b, err := os.ReadFile(f.records())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read own records: %w", err)
	}
	var rs []Record
	if err := json.Unmarshal(b, &rs); err != nil {
		return nil, fmt.Errorf("read own records: %w", err)
	}
	return rs, nil
}

// saveRecords replaces the own records without waiting for the disk: they are written at every publish, and after a
// power failure no container runs.
func (f files) saveRecords(rs []Record) error {
	b, err := json.Marshal(rs)
	if err != nil {
		return fmt.Errorf("write own records: %w", err)
	}
	tmp := f.records() + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("write own records: %w", err)
	}
	return os.Rename(tmp, f.records())
}

// nextIncarnation is above every earlier one of this host even if its file is lost, unless the clock was set back too;
// the other members correct that (see records.Table.Outdo).
func nextIncarnation(last uint64, now time.Time) uint64 {
	return max(last+1, uint64(max(now.UnixMilli(), 0)))
}
