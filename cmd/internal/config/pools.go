package config

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/minictl/minictl/netdriver/ipam"
)

// pools is the value of --default-address-pool: base=PREFIX,size=BITS, as dockerd's.
type pools struct{ to *[]ipam.Block }

// Type is pools.
func (pools) Type() string { return "pools" }

// String shows the pools.
func (p pools) String() string {
	if p.to == nil {
		return ""
	}
	return strings.Join(p.GetSlice(), " ")
}

// GetSlice gives the pools as Set takes them.
func (p pools) GetSlice() (out []string) {
	for _, b := range *p.to {
		out = append(out, fmt.Sprintf("base=%s,size=%d", b.Base, b.Size))
	}
	return out
}

// Set adds one.
func (p pools) Set(text string) error {
	var b ipam.Block
	for field := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		var err error
		switch key {
		case "base":
			b.Base, err = netip.ParsePrefix(value)
		case "size":
			b.Size, err = strconv.Atoi(value)
		default:
			err = fmt.Errorf("%q is neither base nor size", key)
		}
		if err != nil {
			return fmt.Errorf("invalid pool %q: want base=10.10.0.0/16,size=24: %w", text, err)
		}
	}
	if err := b.Check(); err != nil {
		return err
	}
	b.Base = b.Base.Masked()
	for _, o := range *p.to {
		if o.Base.Overlaps(b.Base) {
			return fmt.Errorf("base pools %s and %s overlap", o.Base, b.Base)
		}
	}
	*p.to = append(*p.to, b)
	return nil
}

// setPools gives the flag a file's list: dockerd's objects of base and size.
func (p pools) setPools(value json.RawMessage) error {
	var list []struct {
		Base string `json:"base"`
		Size int    `json:"size"`
	}
	if err := strict(value, &list, `a list of objects such as {"base": "10.10.0.0/16", "size": 24}`); err != nil {
		return err
	}
	for _, b := range list {
		if err := p.Set(fmt.Sprintf("base=%s,size=%d", b.Base, b.Size)); err != nil {
			return err
		}
	}
	return nil
}
