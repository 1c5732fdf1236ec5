package firewall

import (
	"errors"
	"fmt"

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
type kernel struct{ conn *nftables.Conn }

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
func (k *kernel) apply(l *layout) error {
	c, err := k.dial()
	if err != nil {
		return err
	}
	t := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	// Adding first makes the deletion succeed where there was no table; readers see none of it before the commit.
	c.AddTable(t)
	c.DelTable(t)
	if l != nil {
		err = l.queue(c, t)
	}
	if err == nil {
		err = c.Flush()
	}
	if err != nil {
		// Answers to a refused transaction may still wait in the socket; the next one must not read them.
		return errors.Join(fmt.Errorf("commit nftables table %s: %w", t.Name, err), k.close())
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

// queue adds the table and all that is in it to the transaction.
func (l *layout) queue(c *nftables.Conn, t *nftables.Table) error {
	c.AddTable(t)
	for _, s := range l.sets {
		if err := c.AddSet(s.set, nil); err != nil {
			return fmt.Errorf("add set %s: %w", s.set.Name, err)
		}
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
