package firewall

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// The kernel gives back what it was given, in a form of its own: registers of 16 bytes by their old numbers where an
// expression begins at one, sets by name alone, ranges of one by both ends. Both sides are brought to one form before they
// are compared; TestAdopts holds that there is one for all that the plan has.

// sameRules tells whether the kernel's rules are the wished ones, in their order.
func sameRules(want [][]expr.Any, have []*nftables.Rule) bool {
	return slices.EqualFunc(want, have, func(w []expr.Any, h *nftables.Rule) bool {
		return slices.EqualFunc(w, h.Exprs, func(a, b expr.Any) bool { return reflect.DeepEqual(normal(a), normal(b)) })
	})
}

// normal is an expression as both sides would write it. One that the plan does not have is given back as it is.
func normal(e expr.Any) expr.Any {
	switch e := e.(type) {
	case *expr.Meta:
		n := *e
		n.Register = register(n.Register)
		return &n
	case *expr.Payload:
		n := *e
		n.DestRegister = register(n.DestRegister)
		return &n
	case *expr.Cmp:
		n := *e
		n.Register = register(n.Register)
		return &n
	case *expr.Bitwise:
		n := *e
		n.SourceRegister, n.DestRegister = register(n.SourceRegister), register(n.DestRegister)
		return &n
	case *expr.Ct:
		n := *e
		n.Register = register(n.Register)
		return &n
	case *expr.Fib:
		n := *e
		n.Register = register(n.Register)
		return &n
	case *expr.Lookup:
		n := *e
		n.SourceRegister, n.DestRegister, n.SetID = register(n.SourceRegister), register(n.DestRegister), 0
		return &n
	case *expr.NAT:
		n := *e
		n.RegAddrMin, n.RegAddrMax = register(n.RegAddrMin), register(n.RegAddrMax)
		n.RegProtoMin, n.RegProtoMax = register(n.RegProtoMin), register(n.RegProtoMax)
		n.RegAddrMax, n.RegProtoMax = cmp.Or(n.RegAddrMax, n.RegAddrMin), cmp.Or(n.RegProtoMax, n.RegProtoMin)
		n.Specified = false // follows from RegProtoMin
		return &n
	}
	return e
}

// register is the one number of a register that has two (linux/netfilter/nf_tables.h: NFT_REG_1 is NFT_REG32_00).
func register(r uint32) uint32 {
	if r >= word0 && (r-word0)%4 == 0 {
		return reg1 + (r-word0)/4
	}
	return r
}

// sameChain tells whether a chain is where it should be and does what it should with what no rule decides.
func sameChain(want, have *nftables.Chain) bool {
	return want.Type == have.Type && equal(want.Hooknum, have.Hooknum) && equal(want.Priority, have.Priority) && equal(want.Policy, have.Policy)
}

func equal[T comparable](a, b *T) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

// sameSet tells whether a set holds what it should: keys of that length, intervals or not, mapped to that or to nothing.
func sameSet(want, have *nftables.Set) bool {
	return want.Interval == have.Interval && want.IsMap == have.IsMap && want.HasTimeout == have.HasTimeout && want.Dynamic == have.Dynamic &&
		want.KeyType.Bytes == have.KeyType.Bytes && want.DataType.Bytes == have.DataType.Bytes
}

// elementKey tells elements apart: an interval's end may have the key of another's beginning.
type elementKey struct {
	key, keyEnd string
	end         bool
}

func keyOf(e nftables.SetElement) elementKey {
	return elementKey{string(e.Key), string(e.KeyEnd), e.IntervalEnd}
}

// elementsDiffer tells in a few words what is wrong with a set's elements; "" is nothing.
func elementsDiffer(name string, want, have []nftables.SetElement) string {
	there := make(map[elementKey]string, len(have))
	for _, e := range have {
		there[keyOf(e)] = string(e.Val)
	}
	for _, e := range want {
		val, ok := there[keyOf(e)]
		switch {
		case !ok:
			return fmt.Sprintf("set %s lacked an element", name)
		case val != string(e.Val):
			return fmt.Sprintf("map %s led elsewhere", name)
		}
	}
	if len(have) > len(want) {
		return fmt.Sprintf("set %s had an element too many", name)
	}
	return ""
}
