package firewall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Repair compares the kernel's table with the wish and writes it again if somebody has changed it: "nft flush ruleset"
// for one, which other programs run to load rules of their own. It tells what was wrong; "" is nothing.
func (f *Firewall) Repair(ctx context.Context) (wrong string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held || !f.written {
		return "", nil
	}
	l := plan(f.wish)
	if wrong, err = f.kernel.differs(l); err != nil || wrong == f.usual {
		return "", err
	}
	if wrong == "" {
		f.usual = ""
		return "", nil
	}
	if err := f.write(ctx, f.wish); err != nil {
		return wrong, fmt.Errorf("repair firewall table: %w", err)
	}
	// A kernel that lists what it was given in a form unknown here must not have us write for ever.
	if f.usual, err = f.kernel.differs(l); f.usual != "" {
		f.log.ErrorContext(ctx, "the packet rules are written, and listed otherwise: this difference is not looked at from now on", "found", f.usual)
	}
	return wrong, err
}

// differs tells what is not as the layout says, in a few words.
func (k *kernel) differs(l *layout) (string, error) {
	c, err := k.dial()
	if err != nil {
		return "", err
	}
	wrong, err := l.differs(c)
	if err != nil {
		return "", fmt.Errorf("read nftables table %s: %w", tableName, joinClose(err, k))
	}
	return wrong, nil
}

// joinClose gives the connection up: answers may still wait in it.
func joinClose(err error, k *kernel) error {
	_ = k.close()
	return err
}

func (l *layout) differs(c *nftables.Conn) (string, error) {
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(tables, func(t *nftables.Table) bool { return t.Name == tableName })
	switch {
	case l == nil && i < 0:
		return "", nil
	case l == nil:
		return "the table is there", nil
	case i < 0:
		return "the table was gone", nil
	}
	wrong, err := l.setsDiffer(c, tables[i])
	if err != nil || wrong != "" {
		return wrong, err
	}
	return l.chainsDiffer(c, tables[i])
}

func (l *layout) chainsDiffer(c *nftables.Conn, t *nftables.Table) (string, error) {
	all, err := c.ListChainsOfTableFamily(t.Family)
	if err != nil {
		return "", err
	}
	have := map[string]*nftables.Chain{}
	for _, ch := range all {
		if ch.Table.Name == t.Name {
			have[ch.Name] = ch
		}
	}
	for _, want := range l.chains {
		name := want.chain.Name
		ch, ok := have[name]
		if !ok {
			return fmt.Sprintf("chain %s was gone", name), nil
		}
		if !sameChain(want.chain, ch) {
			return fmt.Sprintf("chain %s was at another hook, or of another policy", name), nil
		}
		rules, err := c.GetRules(t, ch)
		if err != nil {
			return "", err
		}
		if len(rules) != len(want.rules) {
			return fmt.Sprintf("chain %s had %d rules, not %d", name, len(rules), len(want.rules)), nil
		}
		if !sameRules(want.rules, rules) {
			return fmt.Sprintf("chain %s had another rule", name), nil
		}
		delete(have, name)
	}
	return unknown("chain", have), nil
}

func (l *layout) setsDiffer(c *nftables.Conn, t *nftables.Table) (string, error) {
	all, err := c.GetSets(t)
	if err != nil {
		return "", err
	}
	have := map[string]*nftables.Set{}
	for _, s := range all {
		s.Table = t
		have[s.Name] = s
	}
	for _, want := range l.sets {
		name := want.set.Name
		s, ok := have[name]
		if !ok {
			return fmt.Sprintf("set %s was gone", name), nil
		}
		if !sameSet(want.set, s) {
			return fmt.Sprintf("set %s was of another kind", name), nil
		}
		elements, err := c.GetSetElements(s)
		if err != nil {
			return "", err
		}
		if wrong := elementsDiffer(name, want.elements, elements); wrong != "" {
			return wrong, nil
		}
		delete(have, name)
	}
	return unknown("set", have), nil
}

// unknown names one of those that are left over.
func unknown[T any](kind string, left map[string]T) string {
	if len(left) == 0 {
		return ""
	}
	return fmt.Sprintf("%s %s was too many", kind, slices.Min(slices.Collect(maps.Keys(left))))
}

// isOverrun tells that news were lost for want of room.
func isOverrun(err error) bool { return errors.Is(err, unix.ENOBUFS) }

// settle is how long after a change others' rules are left to come to rest: programs write theirs in several steps.
const settle = 100 * time.Millisecond

// Watch calls changed after somebody, this process included, has changed anything in nftables in the calling thread's
// network namespace, until ctx ends. What comes in bursts is told once.
func Watch(ctx context.Context, changed func()) error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return fmt.Errorf("watch nftables: %w", err)
	}
	defer c.Close()
	if err := c.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return fmt.Errorf("watch nftables: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for ctx.Err() == nil {
		_, err := c.Receive() // news that were lost for want of room are news, too
		if ctx.Err() != nil {
			break
		}
		if err != nil && !isOverrun(err) {
			return fmt.Errorf("watch nftables: %w", err)
		}
		for over := time.Now().Add(settle); time.Now().Before(over) && ctx.Err() == nil; {
			_ = c.SetReadDeadline(over)
			if _, err := c.Receive(); err != nil && !isOverrun(err) {
				break
			}
		}
		if ctx.Err() == nil {
			_ = c.SetReadDeadline(time.Time{})
			changed()
		}
	}
	return nil
}

// Block is a chain of somebody else's that drops what it does not know, and knows nothing of a bridge of ours.
type Block struct {
	Table, Chain string
	Bridge       string
	DockerUser   bool // docker's chain for its users' own rules is there
}

// String says what follows from it and what helps.
func (b Block) String() string {
	return fmt.Sprintf("packets from and to %s are dropped by the chain %s of table ip %s (policy drop, as docker and ufw set it): its containers' "+
		"published ports and their way outside do not work; type: %s", b.Bridge, b.Chain, b.Table, b.Help())
}

// Help is what to type. Our own table cannot help: a packet has to be let through by every table. Docker leaves the chain
// DOCKER-USER to its users, for rules like these.
func (b Block) Help() string {
	chain := b.Chain
	if b.DockerUser {
		chain = dockerUser
	}
	return fmt.Sprintf("iptables -I %[2]s -i %[1]s -j ACCEPT && iptables -I %[2]s -o %[1]s -j ACCEPT", b.Bridge, chain)
}

const dockerUser = "DOCKER-USER"

// Blocks finds what drops the packets of this host's bridges. Rules that were made by the old iptables, not the one over
// nftables, are not seen.
func (f *Firewall) Blocks(context.Context) ([]Block, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := f.kernel.dial()
	if err != nil {
		return nil, err
	}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", joinClose(err, &f.kernel))
	}
	var out []Block
	for _, ch := range chains {
		drops := ch.Hooknum != nil && *ch.Hooknum == *nftables.ChainHookForward && ch.Type == nftables.ChainTypeFilter &&
			ch.Policy != nil && *ch.Policy == nftables.ChainPolicyDrop
		if !drops {
			continue
		}
		user := slices.ContainsFunc(chains, func(o *nftables.Chain) bool { return o.Table.Name == ch.Table.Name && o.Name == dockerUser })
		known, err := f.named(c, chains, ch.Table.Name, ch.Name)
		if err != nil {
			return nil, fmt.Errorf("list rules: %w", joinClose(err, &f.kernel))
		}
		for _, b := range f.wish.sortedBridges() {
			if !b.Internal && !known(b.Interface) {
				out = append(out, Block{Table: ch.Table.Name, Chain: ch.Name, Bridge: b.Interface, DockerUser: user})
			}
		}
	}
	return out, nil
}

// named tells which interfaces are named, incoming and outgoing, by accepting rules of a chain or of docker's for users.
func (f *Firewall) named(c *nftables.Conn, chains []*nftables.Chain, table, chain string) (func(iface string) bool, error) {
	var names [2][][]byte
	for _, ch := range chains {
		if ch.Table.Name != table || ch.Name != chain && ch.Name != dockerUser {
			continue
		}
		rules, err := c.GetRules(ch.Table, ch)
		if err != nil {
			return nil, err
		}
		for _, r := range rules {
			acceptedNames(r.Exprs, &names)
		}
	}
	fits := func(iface string, list [][]byte) bool {
		return slices.ContainsFunc(list, func(n []byte) bool {
			name, _, whole := bytes.Cut(n, []byte{0})
			return string(name) == iface || !whole && strings.HasPrefix(iface, string(name)) // iptables' "mini+"
		})
	}
	return func(iface string) bool { return fits(iface, names[0]) && fits(iface, names[1]) }, nil
}

// acceptedNames collects the interface names that a rule accepts, incoming ones first.
func acceptedNames(exprs []expr.Any, names *[2][][]byte) {
	direction := -1
	var found [2][][]byte
	accepts := false
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Meta:
			switch e.Key {
			case expr.MetaKeyIIFNAME:
				direction = 0
			case expr.MetaKeyOIFNAME:
				direction = 1
			default:
				direction = -1
			}
		case *expr.Cmp:
			if direction >= 0 && e.Op == expr.CmpOpEq {
				found[direction] = append(found[direction], e.Data)
			}
		case *expr.Verdict:
			accepts = accepts || e.Kind == expr.VerdictAccept
		}
	}
	if accepts {
		for i := range found {
			names[i] = append(names[i], found[i]...)
		}
	}
}
