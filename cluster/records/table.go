package records

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// Table is one host's view of every owner's snapshot. It is not safe for concurrent use.
type Table struct {
	self   string
	owners map[string]*snapshot
}

// snapshot is one owner's records. Of another owner it is replaced or changed by Merge only.
type snapshot struct {
	version   Version
	suspended bool
	records   map[string]Record // by ID
}

// New makes the table of host self, whose daemon starts with the given incarnation and the records it had when it
// stopped.
func New(self string, incarnation uint64, own []Record) *Table {
	s := &snapshot{version: Version{Incarnation: max(incarnation, 1)}, records: make(map[string]Record, len(own))}
	for _, r := range own {
		s.records[r.ID] = r
	}
	return &Table{self: self, owners: map[string]*snapshot{self: s}}
}

// Change writes this host's own records and returns the difference for the others. changed is false, and the update
// without meaning, if all was so already.
func (t *Table) Change(put []Record, del []string) (u Update, changed bool) {
	own := t.owners[t.self]
	u = Update{Owner: t.self, Base: own.version}
	next := make(map[string]Record, len(put))
	for _, r := range put { // of two with one ID the later one counts
		next[r.ID] = r
	}
	for _, id := range slices.Sorted(maps.Keys(next)) {
		if old, ok := own.records[id]; !ok || !old.equal(next[id]) {
			u.Put = append(u.Put, next[id])
			own.records[id] = next[id]
		}
	}
	for _, id := range del {
		if _, put := next[id]; put {
			continue
		}
		if _, ok := own.records[id]; ok {
			u.Del = append(u.Del, id)
			delete(own.records, id)
		}
	}
	if len(u.Put)+len(u.Del) == 0 {
		return Update{}, false
	}
	own.version.Counter++
	u.Version = own.version
	return u, true
}

// Outcome of a Merge.
type Outcome struct {
	Networks []string // whose records changed, sorted
	NeedFull bool     // the difference does not fit; ask its owner for the whole snapshot
	Have     Version  // what the table holds of the owner now
}

// Merge takes over another host's update if it is newer than what the table has. An error means that the update is not
// to be believed, and nothing has changed.
func (t *Table) Merge(u Update) (Outcome, error) {
	if err := u.check(); err != nil {
		return Outcome{}, err
	}
	if u.Owner == t.self {
		return Outcome{}, fmt.Errorf("merge records: they claim to be this host's own: %w", errdefs.ErrInvalidArgument)
	}
	s := t.owners[u.Owner]
	if s == nil {
		s = &snapshot{}
	}
	if u.Version.Compare(s.version) <= 0 {
		return Outcome{Have: s.version}, nil
	}
	if !u.Full && u.Base != s.version {
		return Outcome{NeedFull: true, Have: s.version}, nil
	}
	next := &snapshot{version: u.Version, suspended: s.suspended, records: map[string]Record{}}
	if !u.Full {
		maps.Copy(next.records, s.records)
	}
	for _, id := range u.Del {
		delete(next.records, id)
	}
	for _, r := range u.Put {
		next.records[r.ID] = r
	}
	if len(next.records) > MaxRecords {
		return Outcome{}, fmt.Errorf("record update of %q: %d records: %w", u.Owner, len(next.records), errdefs.ErrInvalidArgument)
	}
	t.owners[u.Owner] = next
	return Outcome{Networks: difference(s.records, next.records), Have: next.version}, nil
}

// difference names the networks of every record that is not the same in both.
func difference(a, b map[string]Record) []string {
	nets := map[string]bool{}
	for id, r := range a {
		if o, ok := b[id]; !ok || !r.equal(o) {
			nets[r.Network] = true
			if ok {
				nets[o.Network] = true
			}
		}
	}
	for id, r := range b {
		if _, ok := a[id]; !ok {
			nets[r.Network] = true
		}
	}
	return slices.Sorted(maps.Keys(nets))
}

// Full gives an owner's whole snapshot to pass on; ok is false if nothing of it is known.
func (t *Table) Full(owner string) (u Update, ok bool) {
	s := t.owners[owner]
	if s == nil || (s.version.Compare(Version{}) <= 0) {
		return Update{}, false
	}
	u = Update{Owner: owner, Version: s.version, Full: true}
	for _, id := range slices.Sorted(maps.Keys(s.records)) {
		u.Put = append(u.Put, s.records[id])
	}
	return u, true
}

// Digest tells the version of every snapshot the table has.
func (t *Table) Digest() map[string]Version {
	d := make(map[string]Version, len(t.owners))
	for owner, s := range t.owners {
		if s.version != (Version{}) { // suspended before anything of it was known
			d[owner] = s.version
		}
	}
	return d
}

// Missing lists, sorted, the owners of which another table's digest has a newer snapshot than this one. The host itself
// is never among them: see Outdo.
func (t *Table) Missing(digest map[string]Version) []string {
	var owners []string
	for owner, v := range digest {
		if owner == "" || owner == t.self {
			continue
		}
		var have Version
		if s := t.owners[owner]; s != nil {
			have = s.version
		}
		if v.Compare(have) > 0 {
			owners = append(owners, owner)
		}
	}
	slices.Sort(owners)
	return owners
}

// Outdo raises this host's version above one that another host claims to have from it, if it is beyond the present one.
// It reports whether it did: the whole snapshot has to be sent to everybody then.
func (t *Table) Outdo(seen Version) bool {
	own := t.owners[t.self]
	if seen.Compare(own.version) <= 0 || seen.Incarnation >= maxIncarnation { // the latter nobody believes
		return false
	}
	own.version = Version{Incarnation: seen.Incarnation + 1}
	return true
}

// SetAlive suspends an owner's records or restores them, and names the networks that this changes.
func (t *Table) SetAlive(owner string, alive bool) []string {
	s := t.owners[owner]
	if s == nil {
		if !alive && owner != t.self {
			t.owners[owner] = &snapshot{suspended: true}
		}
		return nil
	}
	if owner == t.self || s.suspended == !alive {
		return nil
	}
	s.suspended = !alive
	return difference(s.records, nil)
}

// Alive tells whether an owner is not suspended; one that is unknown is not.
func (t *Table) Alive(owner string) bool {
	s := t.owners[owner]
	return s == nil || !s.suspended
}

// Drop forgets an owner that has left the cluster for good, and names the networks that this changes.
func (t *Table) Drop(owner string) []string {
	s := t.owners[owner]
	if s == nil || owner == t.self {
		return nil
	}
	delete(t.owners, owner)
	return difference(s.records, nil)
}

// Owners lists the other hosts of which there are snapshots, sorted.
func (t *Table) Owners() []string {
	var owners []string
	for owner := range t.owners {
		if owner != t.self {
			owners = append(owners, owner)
		}
	}
	slices.Sort(owners)
	return owners
}

// Network lists all records of a network, ordered by address, then by ID.
func (t *Table) Network(id string) []Owned {
	var out []Owned
	for owner, s := range t.owners {
		for _, r := range s.records {
			if r.Network == id {
				out = append(out, Owned{Record: r, Owner: owner, Alive: !s.suspended})
			}
		}
	}
	slices.SortFunc(out, func(a, b Owned) int {
		return cmp.Or(a.Address.Compare(b.Address), a.Address6.Compare(b.Address6), strings.Compare(a.ID, b.ID))
	})
	return out
}

// Networks names the networks on which an owner has records, sorted.
func (t *Table) Networks(owner string) []string {
	s := t.owners[owner]
	if s == nil {
		return nil
	}
	return difference(s.records, nil)
}

// Count tells how many records an owner has.
func (t *Table) Count(owner string) int {
	if s := t.owners[owner]; s != nil {
		return len(s.records)
	}
	return 0
}

// checkInvariants says what must never be true of a table, whatever the others have sent. The tests ask after every step.
func (t *Table) checkInvariants() error {
	own := t.owners[t.self]
	if own == nil || own.suspended {
		return fmt.Errorf("own snapshot missing or suspended")
	}
	for owner, s := range t.owners {
		if owner == "" {
			return fmt.Errorf("a snapshot without owner")
		}
		if len(s.records) > 0 && s.version.Compare(Version{}) <= 0 {
			return fmt.Errorf("snapshot of %s has %d records and no version", owner, len(s.records))
		}
		for id, r := range s.records {
			if id != r.ID || r.Network == "" {
				return fmt.Errorf("snapshot of %s: record %q is filed under %q, network %q", owner, r.ID, id, r.Network)
			}
		}
	}
	return nil
}
