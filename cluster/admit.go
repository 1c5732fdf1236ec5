package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/identity"
	"github.com/minictl/minictl/cluster/store"
)

// admitRequest is what a joining host sends once it has recognised the cluster.
type admitRequest struct {
	Secret  string `json:"secret"`
	Request []byte `json:"request"` // to be signed, PKCS #10
	Node    Node   `json:"node"`
}

// admitReply is all it needs to be a member.
type admitReply struct {
	Certificate []byte   `json:"certificate"` // DER
	Authority   []byte   `json:"authority"`   // DER
	Roots       roots    `json:"roots,omitzero"`
	Cluster     string   `json:"cluster"`
	Epoch       string   `json:"epoch"`
	Past        []string `json:"past,omitempty"`
	Keys        [][]byte `json:"keys"`
	Member      NodeID   `json:"member"` // who answers
	Nodes       []Node   `json:"nodes"`  // all members, the new one among them
	Alive       []NodeID `json:"alive"`  // of them
	// Copy tells that the node of this key is up elsewhere: the host is to make a key of its own and come again.
	Copy bool `json:"copy,omitempty"`
}

func (r admitReply) check() error {
	if r.Cluster == "" || r.Epoch == "" || len(r.Keys) == 0 || r.Member == "" {
		return fmt.Errorf("the member's answer is incomplete: %w", errdefs.ErrInvalidArgument)
	}
	for _, n := range r.Nodes {
		if err := n.check(); err != nil {
			return err
		}
	}
	return nil
}

// admit lets a new host in: any member can, since the authority is in the Store. It is served without a client
// certificate; the token is all there is to go by.
func (c *Cluster) admit(ctx context.Context, r admitRequest) (admitReply, error) {
	if err := c.checkSecret(ctx, r.Secret); err != nil {
		return admitReply{}, err
	}
	ca, err := c.authority(ctx)
	if err != nil {
		return admitReply{}, err
	}
	cert, id, err := ca.Sign(r.Request, c.now())
	if err != nil {
		return admitReply{}, err
	}
	n := r.Node
	n.ID, n.Joined = NodeID(id), time.Now().UTC().Truncate(time.Second)
	if err := n.check(); err != nil {
		return admitReply{}, err
	}
	if self := c.Self(); n.DataPath.Is4() != self.DataPath.Is4() {
		return admitReply{}, fmt.Errorf("the data path of %s, %s, and those of this cluster, such as %s, are of different IP families, and a tunnel is of one: join with --advertise-addr or --data-path-addr of the cluster's: %w",
			n.Name, n.DataPath, self.DataPath, errdefs.ErrInvalidArgument)
	}
	if s := c.session(); s != nil {
		if up, ok := s.gossip.Address(id); ok && up != n.Addr || n.ID == c.Self().ID {
			return admitReply{Copy: true}, nil
		}
	}
	if err := c.cfg.Step("admit"); err != nil {
		return admitReply{}, err
	}
	if err := c.register(ctx, n); err != nil {
		return admitReply{}, err
	}
	if err := c.cfg.Step("admit-registered"); err != nil {
		return admitReply{}, err
	}
	c.log.Info("admitted node", "node", n.ID, "name", n.Name, "addr", n.Addr.String())
	welcome, err := c.welcome(ctx)
	welcome.Certificate, welcome.Authority = cert, ca.Cert.Raw
	return welcome, err
}

func (c *Cluster) checkSecret(ctx context.Context, secret string) error {
	tokens, err := c.tokens(ctx)
	if err != nil {
		return fmt.Errorf("check join token: %w", err)
	}
	for _, t := range tokens {
		if t.SecretIs(secret) {
			return t.CheckExpiry(c.now())
		}
	}
	return fmt.Errorf("this join token is not valid any more, it has been replaced, or it is mistyped: run `minictl cluster token` on a member for the present one: %w", errdefs.ErrPermissionDenied)
}

func (c *Cluster) authority(ctx context.Context) (*identity.Authority, error) {
	p, ok, err := store.Get(ctx, c.store, keyCA, true)
	if err != nil {
		return nil, fmt.Errorf("read cluster authority: %w", err)
	}
	if !ok {
		return nil, fmt.Errorf("read cluster authority: there is none: %w", errdefs.ErrNotFound)
	}
	var ca identity.Authority
	if err := json.Unmarshal(p.Value, &ca); err != nil {
		return nil, err
	}
	return &ca, nil
}

// register writes the node record. Names are unique: two hosts that join at once with one name are put in order by the
// condition on the name's key. A host whose first try failed half way has the same ID and may come again.
func (c *Cluster) register(ctx context.Context, n Node) error {
	for {
		cond := store.Cond{Key: nameKey(n.Name)}
		p, ok, err := store.Get(ctx, c.store, cond.Key, true)
		if err != nil {
			return fmt.Errorf("register node %s: %w", n.Name, err)
		}
		if ok {
			var holder NodeID
			if err := json.Unmarshal(p.Value, &holder); err != nil || holder != n.ID {
				return c.errNameTaken(n.Name, holder)
			}
			cond.Rev = p.Rev
		}
		record, err := json.Marshal(n)
		if err != nil {
			return fmt.Errorf("encode node: %w", err)
		}
		name, err := json.Marshal(n.ID)
		if err != nil {
			return fmt.Errorf("encode node: %w", err)
		}
		t := store.Txn{
			If:   []store.Cond{cond},
			Then: append(c.formerName(ctx, n), store.Op{Key: nodeKey(n.ID), Value: record}, store.Op{Key: cond.Key, Value: name}),
		}
		if err := c.notMissing(ctx, n.ID, &t); err != nil {
			return err
		}
		_, err = c.store.Txn(ctx, t)
		if !errdefs.IsConflict(err) {
			return err
		}
	}
}

// formerName frees the name under which a host had tried before.
func (c *Cluster) formerName(ctx context.Context, n Node) []store.Op {
	p, ok, err := store.Get(ctx, c.store, nodeKey(n.ID), false)
	if err != nil || !ok {
		return nil
	}
	was, err := decodeNode(p.Value)
	if err != nil || nameKey(was.Name) == nameKey(n.Name) {
		return nil
	}
	return []store.Op{{Key: nameKey(was.Name), Delete: true}}
}

func (c *Cluster) errNameTaken(name string, holder NodeID) error {
	at := ""
	if n, ok := c.known()[holder]; ok {
		at = " at " + n.Addr.Addr().String()
	}
	return fmt.Errorf("a node named %s is in the cluster already (%s%s): start this host's daemon with another name, `minictl daemon --node-name NAME`, or, if that node is gone for good, run `minictl node rm` for it on a member: %w",
		name, holder, at, errdefs.ErrAlreadyExists)
}

// welcome is all that a host must know to be a member, but its certificate.
func (c *Cluster) welcome(ctx context.Context) (admitReply, error) {
	pairs, _, err := c.store.Range(ctx, prefixNode, true)
	if err != nil {
		return admitReply{}, err
	}
	st := c.snapshotState()
	r := admitReply{
		Cluster: st.Cluster, Epoch: st.Epoch, Past: st.Past, Keys: st.Keys, Member: st.Self.ID, Alive: []NodeID{st.Self.ID},
	}
	for _, p := range pairs {
		if other, err := decodeNode(p.Value); err == nil {
			r.Nodes = append(r.Nodes, other)
		}
	}
	if s, err := c.readSecrets(ctx, false); err == nil {
		r.Roots = s.roots
	}
	for _, other := range c.live() {
		r.Alive = append(r.Alive, other.ID)
	}
	return r, nil
}
