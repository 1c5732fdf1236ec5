package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/minictl/minictl/cluster/store"
	"github.com/minictl/minictl/netdriver/ipam"
)

// keyPools is where the Store has the ranges that overlays without a --subnet are cut from, if somebody chose them.
const keyPools = "address-pools"

// pools is keyPools' value.
type pools struct {
	Bases []netip.Prefix `json:"bases"`
	Bits  int            `json:"bits"` // prefix length of each subnet; see ipam.Blocks
}

// chosenPools reads the pools; ok is false when nobody chose any.
func chosenPools(ctx context.Context, s store.Store, fresh bool) (p pools, ok bool, err error) {
	pair, ok, err := store.Get(ctx, s, keyPools, fresh)
	if err != nil || !ok {
		return p, false, err
	}
	if err := json.Unmarshal(pair.Value, &p); err != nil {
		return p, false, fmt.Errorf("read %s: %w", keyPools, err)
	}
	return p, true, nil
}

// overlayBlocks are what overlays' subnets of each family are cut from.
func (e *Engine) overlayBlocks(ctx context.Context) (v4, v6 []ipam.Block, err error) {
	p, _, err := chosenPools(ctx, e.cl.Store(), true)
	if err != nil {
		return nil, nil, err
	}
	chosen, err := ipam.Blocks(p.Bases, p.Bits)
	if err != nil {
		return nil, nil, err
	}
	for _, b := range chosen {
		if b.Base.Addr().Is4() {
			v4 = append(v4, b)
		} else {
			v6 = append(v6, b)
		}
	}
	if len(v4) == 0 {
		v4 = ipam.DefaultOverlay()
	}
	if len(v6) == 0 {
		v6 = []ipam.Block{e.clusterULA()}
	}
	return v4, v6, nil
}

// choosePools writes the pools before there are others to read them, and gives the way back. Without any there is nothing
// to do.
func (e *Engine) choosePools(ctx context.Context, bases []netip.Prefix, bits int) (undo func(), err error) {
	if len(bases) == 0 {
		return func() {}, nil
	}
	if bits == 0 {
		bits = ipam.DefaultSize(bases)
	}
	if _, err := ipam.Blocks(bases, bits); err != nil {
		return nil, err
	}
	value, err := json.Marshal(pools{bases, bits})
	if err != nil {
		return nil, err
	}
	if _, err := e.cl.Store().Txn(ctx, store.Txn{Then: []store.Op{{Key: keyPools, Value: value}}}); err != nil {
		return nil, e.undecided("choose address pools", err)
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		if _, err := e.cl.Store().Txn(ctx, store.Txn{Then: []store.Op{{Key: keyPools, Delete: true}}}); err != nil {
			e.log.Error("forget address pools", "err", err)
		}
	}, nil
}
