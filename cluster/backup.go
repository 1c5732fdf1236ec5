package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/identity"
	"github.com/minictl/minictl/cluster/store"
)

// A backup names itself, so that another file is recognised as such, and a later form as later.
const (
	backupFormat  = "minictl cluster backup"
	backupVersion = 1
	maxBackup     = 256 << 20 // bytes; 10,000 endpoints take 5 MB
)

// Backup is all that a cluster has decided, its authority's private key among it, and who the host is that wrote it down.
// What single hosts keep for themselves is not in it: containers, local networks, volumes, images.
type Backup struct {
	Format  string       `json:"format"`
	Version int          `json:"version"`
	Made    time.Time    `json:"made"`
	By      string       `json:"by"` // version of the daemon
	Cluster string       `json:"cluster"`
	Epoch   string       `json:"epoch"`
	Past    []string     `json:"past,omitempty"`
	Self    Node         `json:"self"` // who wrote it down, and who a host becomes that is restored from it
	Key     []byte       `json:"key"`  // of Self, PKCS #8 DER
	Pairs   []backupPair `json:"pairs"`
}

type backupPair struct {
	Key   string `json:"k"`
	Value []byte `json:"v"`
}

// Backup writes down what the cluster has decided up to now; somebody who decides must answer.
func (c *Cluster) Backup(ctx context.Context) (Backup, error) {
	if err := c.errExternal("back up"); err != nil {
		return Backup{}, err
	}
	if !c.Clustered() {
		return Backup{}, fmt.Errorf("back up cluster: this host is a cluster of its own: run `minictl cluster init` first: %w", errdefs.ErrFailedPrecondition)
	}
	pairs, _, err := c.store.Range(ctx, "", true)
	if err != nil {
		return Backup{}, fmt.Errorf("back up cluster: %w", err)
	}
	c.mu.Lock()
	st, node := c.st, c.node
	c.mu.Unlock()
	key, err := node.Key()
	if err != nil {
		return Backup{}, fmt.Errorf("back up cluster: %w", err)
	}
	b := Backup{
		Format: backupFormat, Version: backupVersion, Made: c.now().UTC().Truncate(time.Second), By: c.cfg.Version,
		Cluster: st.Cluster, Epoch: st.Epoch, Past: st.Past, Self: st.Self, Key: key,
	}
	for _, p := range pairs {
		if !strings.HasPrefix(p.Key, prefixToken) { // they admit hosts for a day; a backup lies about for years
			b.Pairs = append(b.Pairs, backupPair{p.Key, p.Value})
		}
	}
	return b, nil
}

// Write gives the form that ReadBackup reads.
func (b Backup) Write(w io.Writer) error {
	if err := json.NewEncoder(w).Encode(b); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	return nil
}

// ReadBackup reads what Write wrote. Anything else is ErrInvalidArgument, a later form ErrNotImplemented.
func ReadBackup(r io.Reader) (Backup, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxBackup+1))
	if err != nil {
		return Backup{}, fmt.Errorf("read backup: %w", err)
	}
	bad := func(format string, args ...any) (Backup, error) {
		return Backup{}, fmt.Errorf("read backup: "+format+": %w", append(args, errdefs.ErrInvalidArgument)...)
	}
	if len(raw) > maxBackup {
		return bad("more than %d bytes", maxBackup)
	}
	var head struct {
		Format  string `json:"format"`
		Version int    `json:"version"`
		By      string `json:"by"`
	}
	if json.Unmarshal(raw, &head) != nil || head.Format != backupFormat {
		return bad("this is not what minictl cluster backup writes, or not all of it")
	}
	if head.Version != backupVersion {
		return Backup{}, fmt.Errorf("read backup: it has version %d, written by minictl %.40q, and this minictl knows %d; upgrade minictl on this host: %w",
			head.Version, head.By, backupVersion, errdefs.ErrNotImplemented)
	}
	var b Backup
	if err := json.Unmarshal(raw, &b); err != nil {
		return bad("%w", err)
	}
	if err := b.check(); err != nil {
		return bad("%w", err)
	}
	return b, nil
}

// check wants all that a host needs to go on as the one that wrote the backup.
func (b Backup) check() error {
	node, err := identity.ParseKey(b.Key)
	if err != nil {
		return err
	}
	if NodeID(node.ID) != b.Self.ID {
		return fmt.Errorf("it is of node %s and holds the key of node %s", b.Self.ID, node.ID)
	}
	if err := b.Self.check(); err != nil {
		return err
	}
	if b.Cluster == "" || b.Epoch == "" {
		return errors.New("no cluster or epoch")
	}
	for _, p := range b.Pairs {
		if err := (store.Txn{Then: []store.Op{{Key: p.Key, Value: p.Value}}}).Validate(); err != nil {
			return err
		}
	}
	if _, err := b.authority(); err != nil {
		return err
	}
	_, err = b.gossipKeys()
	return err
}

func (b Backup) value(key string) []byte {
	i := slices.IndexFunc(b.Pairs, func(p backupPair) bool { return p.Key == key })
	if i < 0 {
		return nil
	}
	return b.Pairs[i].Value
}

func (b Backup) authority() (*identity.Authority, error) {
	var ca identity.Authority
	if err := json.Unmarshal(b.value(keyCA), &ca); err != nil {
		return nil, fmt.Errorf("no good authority: %w", err)
	}
	return &ca, nil
}

func (b Backup) gossipKeys() ([][]byte, error) {
	var keys [][]byte
	if err := json.Unmarshal(b.value(keyGossip), &keys); err != nil || len(keys) == 0 || len(keys[0]) != gossipKeyBytes {
		return nil, errors.New("no good gossip key")
	}
	return keys, nil
}

// nodes are all members, self as it is now.
func (b Backup) nodes(self Node) []Node {
	out := []Node{self}
	for _, p := range b.Pairs {
		if n, err := decodeNode(p.Value); strings.HasPrefix(p.Key, prefixNode) && err == nil && n.ID != self.ID {
			out = append(out, n)
		}
	}
	return out
}

// Restore makes this host the one that wrote the backup, with the addresses of o, and the only one that decides, in a new
// epoch. The other members are known and missing. Their epoch is not among those that the new one follows upon: if they
// have gone on meanwhile, nothing of theirs is undone unless an operator says so (Rejoin). It is refused on a member of a
// cluster and on a host that has decided something of its own.
func (c *Cluster) Restore(ctx context.Context, b Backup, o InitOptions) error {
	if err := c.begin("restore"); err != nil {
		return err
	}
	defer c.op.Unlock()
	if err := c.errExternal("restore"); err != nil {
		return err
	}
	if c.Clustered() {
		return c.errClustered("restore")
	}
	if err := c.checkNoNetworks(ctx); err != nil {
		return fmt.Errorf("restore cluster: %w", err)
	}
	if err := b.check(); err != nil {
		return fmt.Errorf("restore cluster: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	o.DataPathPort = b.Self.DataPathPort // the others send there
	self := o.node(b.Self)
	self.Joined, self.Version = b.Self.Joined, c.cfg.Version
	if err := self.check(); err != nil {
		return fmt.Errorf("restore cluster: %w", err)
	}
	if err := c.becomeBackup(ctx, b, describe(self)); err != nil {
		c.stopSession()
		return errors.Join(fmt.Errorf("restore cluster: %w", err), c.closeBackend(), c.startAfresh())
	}
	c.log.Warn("restored the cluster from a backup", "made", b.Made, "before", b.Epoch, "epoch", c.Epoch())
	return nil
}

// becomeBackup replaces identity, state and replica. Until all is there cluster.json says that this host is to forget all:
// a crash half way leaves a host alone, to be restored again.
func (c *Cluster) becomeBackup(ctx context.Context, b Backup, self Node) error {
	st := state{
		Version: stateVersion, Cluster: b.Cluster, Epoch: epochAfter(b.Epoch), Past: b.Past, Clustered: true,
		Incarnation: nextIncarnation(0, c.now()), Self: self, Nodes: b.nodes(self),
	}
	var err error
	if st.Keys, err = b.gossipKeys(); err != nil {
		return err
	}
	if err := c.files.save(state{Version: stateVersion, Reset: true}); err != nil {
		return err
	}
	if err := errors.Join(c.closeBackend(), os.RemoveAll(c.files.raft()), removeFile(c.files.records())); err != nil {
		return err
	}
	node, cred, err := b.identify(c.files.identity(), c.now())
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.node = node
	c.mu.Unlock()
	c.restoreState(st)
	c.pub.restart(node.ID, st.Incarnation)
	if err := c.reopenBackend(ctx, true); err != nil {
		return err
	}
	if err := c.startSession(cred); err != nil { // before the Store is written: the address may be wrong
		return err
	}
	if err := c.writeBackup(ctx, b, st); err != nil {
		return err
	}
	if err := c.saveState(); err != nil {
		return err
	}
	c.suspendOthers(ctx)
	return nil
}

// identify writes the key of the backup's host and a fresh certificate into dir.
func (b Backup) identify(dir string, now time.Time) (*identity.Node, *identity.Credentials, error) {
	ca, err := b.authority()
	if err != nil {
		return nil, nil, err
	}
	node, err := identity.ParseKey(b.Key)
	if err != nil {
		return nil, nil, err
	}
	cred, err := ca.Issue(node, now)
	if err != nil {
		return nil, nil, err
	}
	return node, cred, errors.Join(node.Save(dir), cred.Save(dir))
}

// writeBackup fills the empty Store. The takeover comes last: what it says is missing was there before.
func (c *Cluster) writeBackup(ctx context.Context, b Backup, st state) error {
	var t Takeover
	if v := b.value(keyTakeover); v != nil {
		if err := json.Unmarshal(v, &t); err != nil {
			return fmt.Errorf("decode %s: %w", keyTakeover, err)
		}
	}
	var ops []store.Op
	size := 0
	flush := func() error {
		if len(ops) == 0 {
			return nil
		}
		_, err := c.store.Txn(ctx, store.Txn{Then: ops})
		ops, size = nil, 0
		return err
	}
	for _, p := range b.Pairs {
		if n := len(p.Key) + len(p.Value); len(ops) == opsPerTxn || size+n > store.MaxTxn/2 {
			if err := flush(); err != nil {
				return err
			}
		}
		ops, size = append(ops, store.Op{Key: p.Key, Value: p.Value}), size+len(p.Key)+len(p.Value)
		if strings.HasPrefix(p.Key, prefixNetwork) {
			t.add(p.Key)
		}
	}
	if err := flush(); err != nil {
		return err
	}
	t.Epoch, t.Node, t.At, t.Missing = st.Epoch, st.Self.ID, c.now().UTC().Truncate(time.Second), nil
	for _, n := range st.Nodes {
		t.add(nodeKey(n.ID))
		if n.ID != t.Node {
			t.Missing = append(t.Missing, n.ID)
		}
	}
	return c.putAll(ctx, nil, map[string]any{nodeKey(st.Self.ID): st.Self, keyTakeover: t, keyEpochs: st.Past})
}
