package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// opList is a look at all names of a cluster at rest.
const opList = "list"

// netCall is one call about a network's name, as its caller saw it.
type netCall struct {
	name string
	op   string // opNetCreate, opNetRemove, or opList
}

type netAnswer struct {
	ok      bool // create, rm: it was done; list: it was there
	inUse   bool // rm: it was there, and stayed
	unknown bool // it may have been done, now or later
}

// history is every call about networks' names since a moment at which all was known.
type history struct {
	mu    sync.Mutex
	began time.Time
	calls []porcupine.Operation
}

func newHistory() *history { return &history{began: time.Now()} }

// begin notes when a call begins; the function it gives notes its answer.
func (h *history) begin(client int, name, op string) func(netAnswer) {
	at := time.Since(h.began)
	return func(a netAnswer) {
		end := time.Since(h.began)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.calls = append(h.calls, porcupine.Operation{
			ClientId: client, Input: netCall{name, op}, Output: a, Call: int64(at), Return: int64(end),
		})
	}
}

// check looks for one order of the calls that explains every answer. An answer that never came may have been given at
// any time until now, or never.
func (h *history) check(limit time.Duration) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := int64(time.Since(h.began))
	calls := make([]porcupine.Operation, 0, len(h.calls))
	for _, c := range h.calls {
		if c.Output.(netAnswer).unknown {
			c.Return = now
		}
		calls = append(calls, c)
	}
	switch res := porcupine.CheckOperationsTimeout(nameModel(), calls, limit); res {
	case porcupine.Ok, porcupine.Unknown: // unknown: too many orders to try them all
		return nil
	default:
		text := ""
		for _, c := range calls {
			text += fmt.Sprintf("\n%8.3f %8.3f %s", time.Duration(c.Call).Seconds(), time.Duration(c.Return).Seconds(), nameModel().DescribeOperation(c.Input, c.Output))
		}
		return fmt.Errorf("no order of these calls explains their answers:%s", text)
	}
}

// What a name is: nobody has looked at it yet, or it is there, or it is not.
const (
	unseen = iota
	absent
	present
)

// nameModel is a name that is there or not.
func nameModel() porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			by := map[string][]porcupine.Operation{}
			for _, c := range history {
				n := c.Input.(netCall).name
				by[n] = append(by[n], c)
			}
			var out [][]porcupine.Operation
			for _, c := range by {
				out = append(out, c)
			}
			return out
		},
		Init: func() any { return unseen },
		Step: func(state, input, output any) (bool, any) {
			before, after := explain(input.(netCall), output.(netAnswer))
			was := state.(int)
			return was == unseen || before == unseen || was == before, after
		},
		DescribeOperation: func(input, output any) string {
			in, out := input.(netCall), output.(netAnswer)
			switch {
			case out.unknown:
				return fmt.Sprintf("%s %s: no answer", in.op, in.name)
			case out.inUse:
				return fmt.Sprintf("%s %s: in use", in.op, in.name)
			}
			return fmt.Sprintf("%s %s: %v", in.op, in.name, out.ok)
		},
	}
}

// explain gives what a name must have been before a call, unseen for anything, and what it is after it. A call without an
// answer may always have been: if it was not, it stands last, where it explains nothing.
func explain(in netCall, out netAnswer) (before, after int) {
	switch {
	case in.op == opNetCreate && out.unknown:
		return unseen, present
	case in.op == opNetRemove && out.unknown:
		return unseen, absent
	case in.op == opNetCreate && out.ok:
		return absent, present
	case in.op == opNetRemove && out.ok:
		return present, absent
	case in.op == opNetCreate || out.inUse || out.ok:
		return present, present
	}
	return absent, absent
}
