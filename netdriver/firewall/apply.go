package firewall

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
)

// socketBuffer is the room for one transaction and its answers, in bytes. The kernel takes a transaction as one message,
// and a thousand ports need about 100 kB of it.
const socketBuffer = 8 << 20

// maxElements is how many elements go into one message: the list's length is a 16-bit number of bytes.
const maxElements = 400

// kernel is the connection to nftables of the network namespace it was first used in. It stays open: closing a netlink
// socket after a deletion waits 10 to 30 ms for the kernel's grace period, which no container start should pay.
type kernel struct {
	log  *slog.Logger
	conn *nftables.Conn
}

func (k *kernel) dial() (*nftables.Conn, error) {
	if k.conn != nil {
		return k.conn, nil
	}
	c, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		return errors.Join(c.SetWriteBuffer(socketBuffer), c.SetReadBuffer(socketBuffer))
	}))
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	k.conn = c
	return c, nil
}

func (k *kernel) close() error {
	c := k.conn
	k.conn = nil
	if c == nil {
		return nil
	}
	return c.CloseLasting()
}

// apply makes the kernel's table equal l in one transaction; a nil l removes it.
//
// The table, its chains and its sets stay and only their contents are replaced. Deleting and adding the table in one
// transaction is atomic too, but the old chains and the new ones are separate hooks, and a packet that passes one before
// the switch and the other after it meets no rule: connections were seen refused that way. Only a table that cannot
// take the new contents, such as one of an older version, is replaced as a whole.
func (k *kernel) apply(l *layout) error {
	err := k.commit(l, false)
	if err != nil && l != nil {
		k.log.Warn("the firewall table cannot be changed in place and is replaced", "err", err)
		err = k.commit(l, true)
	}
	if err != nil {
		return fmt.Errorf("commit nftables table %s: %w", tableName, err)
	}
	return nil
}

func (k *kernel) commit(l *layout, afresh bool) error {
	c, err := k.dial()
	if err != nil {
		return err
	}
	t := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	// Adding first makes deleting and flushing succeed where there was no table; nobody sees it before the commit.
	c.AddTable(t)
	if l == nil || afresh {
		c.DelTable(t)
	}
	if l != nil {
		err = errors.Join(l.clear(c, t, afresh), l.queue(c, t))
	}
	if err = errors.Join(err, c.Flush()); err != nil {
		// Answers to a refused transaction may still wait in the socket; the next one must not read them.
		return errors.Join(err, k.close())
	}
	return nil
}

// clear takes the rules out of the table, and the chains and sets that the layout does not have.
func (l *layout) clear(c *nftables.Conn, t *nftables.Table, afresh bool) error {
	c.AddTable(t)
	if there, err := c.ListTableOfFamily(t.Name, t.Family); afresh || err != nil || there == nil {
		return nil // nothing to take out; if the question failed, so will the transaction
	}
	chains, err := c.ListChainsOfTableFamily(t.Family)
	if err != nil {
		return fmt.Errorf("list chains: %w", err)
	}
	sets, err := c.GetSets(t)
	if err != nil {
		return fmt.Errorf("list sets: %w", err)
	}
	c.FlushTable(t)
	for _, ch := range chains {
		if ch.Table.Name == t.Name && !slices.ContainsFunc(l.chains, func(f filledChain) bool { return f.chain.Name == ch.Name }) {
			c.DelChain(ch)
		}
	}
	for _, s := range sets {
		if !slices.ContainsFunc(l.sets, func(f filledSet) bool { return f.set.Name == s.Name }) {
			c.DelSet(s)
		}
	}
	return nil
}

// present asks whether our table is there. An unclear answer is "no": writing once more does no harm.
func (k *kernel) present() bool {
	c, err := k.dial()
	if err != nil {
		return false
	}
	t, err := c.ListTableOfFamily(tableName, nftables.TableFamilyINet)
	return err == nil && t != nil
}

// queue adds all that is in the table to the transaction.
func (l *layout) queue(c *nftables.Conn, t *nftables.Table) error {
	for _, s := range l.sets {
		if err := c.AddSet(s.set, nil); err != nil {
			return fmt.Errorf("add set %s: %w", s.set.Name, err)
		}
		c.FlushSet(s.set)
		for els := s.elements; len(els) > 0; {
			n := min(len(els), maxElements)
			if err := c.SetAddElements(s.set, els[:n]); err != nil {
				return fmt.Errorf("fill set %s: %w", s.set.Name, err)
			}
			els = els[n:]
		}
	}
	for _, ch := range l.chains {
		c.AddChain(ch.chain)
	}
	for _, ch := range l.chains {
		for _, r := range ch.rules {
			c.AddRule(&nftables.Rule{Table: t, Chain: ch.chain, Exprs: r})
		}
	}
	return nil
}
