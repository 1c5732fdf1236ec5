package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster"
	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/cluster/transport"
	"github.com/minictl/minictl/cmd/internal/api"
)

// ClusterRecover makes this host the one that decides, after those that did are gone. A dry run only says what that means.
func (e *Engine) ClusterRecover(ctx context.Context, dryRun bool) (r api.ClusterRecoverResponse, err error) {
	plan, err := e.cl.Recoverable(ctx)
	if err != nil {
		return r, err
	}
	r.Summary = recoveryWords(e.cl.Self(), plan, e.cl.Members(), e.cl.Standing().Since, time.Now())
	if dryRun {
		r.Epoch = e.cl.Epoch()
		return r, nil
	}
	if err := e.cl.Recover(ctx); err != nil {
		return r, err
	}
	r.Epoch, r.NodeID = e.cl.Epoch(), string(e.cl.Self().ID)
	e.wakeReconcile()
	return r, e.adoptDataPath(ctx)
}

// recoveryWords tell an operator what a takeover means, before there is one: who is missing since when, who is not, and what
// becomes of both.
func recoveryWords(self cluster.Node, r cluster.Recovery, members []cluster.Member, since, now time.Time) []string {
	var out []string
	if len(r.Missing) > 0 {
		out = append(out, fmt.Sprintf("Not heard for %s: %s, which %s for this cluster.", lengthOf(since, now), addressedNames(r.Missing), plural(r.Missing, "decides", "decide")))
	}
	up := slices.DeleteFunc(slices.Clone(members), func(m cluster.Member) bool { return !m.Alive || m.ID == self.ID })
	if len(up) > 0 {
		out = append(out, fmt.Sprintf("Up, and heard here: %s. %s by %s, containers running.", addressedNames(up),
			plural(up, "It follows", "They follow"), plural(up, "itself", "themselves")))
	} else {
		out = append(out, "No other host is heard here.")
	}
	out = append(out, fmt.Sprintf("From now on %s decides alone, by what it knows. What the others have decided and not told it is lost.", self.Name))
	switch {
	case r.Lag == 1:
		out = append(out, "The last entry that it has heard of may not have been decided; it will count.")
	case r.Lag > 1:
		out = append(out, fmt.Sprintf("The last %d entries that it has heard of may not have been decided; they will count.", r.Lag))
	}
	if away := memberNames(slices.Concat(r.Missing, r.Others)); len(away) > 0 {
		slices.Sort(away)
		out = append(out, fmt.Sprintf("Until minictl node rm, the addresses and reserves of %s stay %s. Whoever returns is kept out until it has joined again, which it does by itself, its containers running.",
			strings.Join(away, ", "), plural(away, "its own", "theirs")))
	}
	return out
}

func memberNames(members []cluster.Member) []string {
	var out []string
	for _, m := range members {
		out = append(out, m.Name)
	}
	return out
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// ClusterRejoin gives up this side of a cluster that has gone on in several places.
func (e *Engine) ClusterRejoin(ctx context.Context, via string) error {
	if err := e.cl.Rejoin(ctx, via); err != nil {
		return err
	}
	e.wakeReconcile()
	return e.adoptDataPath(ctx)
}

// ClusterFind calls a member where it is now.
func (e *Engine) ClusterFind(ctx context.Context, node, addr string) error {
	return e.cl.Find(ctx, node, addr)
}

// keepOwnNetworks looks at the networks that this host made while the cluster went on without it. Those that clash with
// nothing become the cluster's: somebody was told that they exist. The others are named in the log; containers on them go
// on, alone.
func (e *Engine) keepOwnNetworks(ctx context.Context) error {
	pairs, err := e.cl.Before(ctx)
	if err != nil || len(pairs) == 0 {
		return err
	}
	for _, p := range pairs {
		n := &Network{}
		if err := json.Unmarshal(p.Value, n); err != nil {
			e.log.Warn("a network from before a takeover cannot be read", "key", p.Key, "err", err)
			continue
		}
		err := e.keepOwnNetwork(ctx, n)
		if errdefs.IsUnavailable(err) || ctx.Err() != nil {
			return errors.Join(err, ctx.Err()) // later
		}
		if err != nil {
			e.log.Error("a network that was made here meanwhile cannot become the cluster's", "network", n.Name, "id", n.ID, "err", err)
			continue
		}
		e.log.Info("a network that was made here meanwhile is the cluster's now", "network", n.Name, "id", n.ID)
	}
	return e.cl.ForgetBefore(ctx, pairs)
}

// keepOwnNetwork makes a network the cluster's as it is: its VNI and subnet are in the kernel already.
func (e *Engine) keepOwnNetwork(ctx context.Context, n *Network) error {
	for range casAttempts {
		cond, err := e.generation(ctx)
		if err != nil {
			return err
		}
		others, _, err := e.globalNetworks(ctx, true)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(others, func(o *Network) bool { return o.ID == n.ID }) {
			return nil
		}
		if err := fits(n, others); err != nil {
			return err
		}
		ops, err := e.foundation(n)
		if err != nil {
			return err
		}
		_, err = e.cl.Store().Txn(ctx, store.Txn{If: []store.Cond{cond}, Then: ops})
		if !errdefs.IsConflict(err) {
			return err
		}
	}
	return unavailable("keep network %s: the cluster's networks keep changing", n.Name)
}

// fits says what of a network that exists somebody else has.
func fits(n *Network, others []*Network) error {
	if err := nameFree(others, n.Name); err != nil {
		return err
	}
	for _, o := range others {
		if o.VNI == n.VNI {
			return conflict("network %s has its VXLAN identifier, %d", o.Name, n.VNI)
		}
		for _, s := range o.Subnets {
			for _, mine := range n.Subnets {
				if s.Prefix.Overlaps(mine.Prefix) {
					return conflict("network %s has %s, which overlaps %s", o.Name, s.Prefix, mine.Prefix)
				}
			}
		}
	}
	return nil
}

// reserveLeft names, by network, how many addresses this host may still give while nobody decides.
func (e *Engine) reserveLeft(ctx context.Context) string {
	all, _, err := e.globalNetworks(ctx, false)
	if err != nil {
		return ""
	}
	node := string(e.cl.Self().ID)
	var out []string
	for _, n := range all {
		e.adoptReserve(ctx, n.ID, node)
		list, _ := e.spares.list(node, n.ID)
		out = append(out, fmt.Sprintf("%s (%d)", n.Name, countFree(list)))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func countFree(list map[netip.Addr]lease) (free int) {
	for _, l := range list {
		if !l.taken() {
			free++
		}
	}
	return free
}

// estrangedWords say who is there and takes no part.
func estrangedWords(list []cluster.Estranged, name func(node string) string) []string {
	var out []string
	var split []string
	for _, x := range list {
		who := name(string(x.ID))
		switch x.How {
		case transport.Split:
			split = append(split, fmt.Sprintf("%s (epoch %s)", who, x.Epoch))
		case transport.Behind:
			out = append(out, fmt.Sprintf("This cluster has gone on without %s, which is up: it joins again by itself.", who))
		case transport.Ahead:
			out = append(out, fmt.Sprintf("This cluster has gone on without this host, on %s: this host joins again by itself.", who))
		}
	}
	if len(split) > 0 {
		slices.Sort(split)
		out = append(out, fmt.Sprintf("This cluster has gone on apart: here, and on %s. Nothing passes between these sides. Choose the one whose decisions to keep, and run on the hosts of each other one: minictl cluster rejoin. Their containers go on.",
			strings.Join(split, ", ")))
	}
	return out
}
