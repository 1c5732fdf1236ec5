package cluster

import (
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/transport"
)

// refusal is what another member said last when it refused this host.
type refusal struct {
	sentence string
	at       time.Time
}

// refused is told by the transport.
func (c *Cluster) refused(sentence string) {
	for _, class := range []error{errdefs.ErrPermissionDenied, transport.ErrCopy} { // it is read by people
		sentence = strings.TrimSuffix(sentence, ": "+class.Error())
	}
	c.mu.Lock()
	first := c.no.sentence != sentence
	c.no = refusal{sentence, time.Now()}
	c.mu.Unlock()
	if first {
		c.log.Error("the other members refuse this host", "err", sentence)
	}
}

// Refused is why the others do not let this host take part, in the words of one of them; empty while they do. Others are
// asked every few seconds, so that it is not known at once.
func (c *Cluster) Refused() string {
	if len(c.live()) > 0 {
		return ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.no.at) > metFor {
		return ""
	}
	// To who says it this host is a node like any other.
	sentence := strings.ReplaceAll(c.no.sentence, "node "+string(c.st.Self.ID), "this host")
	return strings.ReplaceAll(sentence, "` on it", "` here")
}

// Stopped says why this host's replica follows the others' decisions no further; nil while it does. A newer release has
// decided something that this one does not know: it is not skipped, since the replicas would differ from then on.
func (c *Cluster) Stopped() error { return c.decider().Err() }

// errCopy is said to a host that has the key of a member which is up at another address: one machine was cloned from the
// other. Whoever came first stays.
func (c *Cluster) errCopy(id NodeID) error {
	c.mu.Lock()
	n, ok := c.nodes[id]
	c.mu.Unlock()
	name := string(id)
	if ok {
		name = fmt.Sprintf("%s (%s)", n.Name, n.Addr.Addr())
	}
	return fmt.Errorf("node %s is up, and this host has its key: one machine was copied from the other, or a backup of it was restored there. To make this one a node of its own, run `minictl cluster leave --force` on it, give it a host name of its own, and join it: %w: %w",
		name, transport.ErrCopy, errdefs.ErrPermissionDenied)
}
