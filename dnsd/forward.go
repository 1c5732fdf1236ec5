package dnsd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// exchangeTimeout bounds a whole query: stub resolvers give up after 5 s, and an answer after that is for nobody.
	exchangeTimeout = 4 * time.Second
	// patience is how long an upstream may be silent before the next one is asked as well.
	patience = time.Second
	// grudge is how long an upstream that was silent is asked after the others.
	grudge = 10 * time.Second
	// maxUpstreams is how many servers are asked, as in resolv.conf(5).
	maxUpstreams = 3
)

// forwarder hands queries to upstream servers, from the network namespace of this process or by a view's Dial. There is no limit on queries
// under way: each has a socket of its own and an end.
type forwarder struct {
	log *slog.Logger

	mu     sync.Mutex
	silent map[netip.AddrPort]time.Time
}

func newForwarder(log *slog.Logger) *forwarder {
	return &forwarder{log: log, silent: map[netip.AddrPort]time.Time{}}
}

// verdict is what one upstream said.
type verdict struct {
	from netip.AddrPort
	raw  []byte
	err  error
}

// refused tells whether another server may know better. The header's last four bits of flags are the RCODE (RFC 1035
// section 4.1.1).
func (v verdict) refused() bool {
	rcode := int(v.raw[3] & 0xf)
	return rcode == dns.RcodeServerFailure || rcode == dns.RcodeRefused
}

// exchange asks the upstreams in turn and gives the first good answer, in the wire format and with the query's own ID.
// The next one is asked as soon as one refuses or fails, or after patience while the silent one may still answer. The
// last refusal is passed on at once rather than waiting for those that are silent.
func (f *forwarder) exchange(ctx context.Context, req *dns.Msg, upstreams []netip.AddrPort, dial Dial, overTCP bool) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	todo := f.inOrder(upstreams)
	heard := make(chan verdict, len(todo))
	pending := map[netip.AddrPort]bool{}
	next := func() {
		if len(todo) > 0 {
			up := todo[0]
			todo, pending[up] = todo[1:], true
			wg.Go(func() {
				raw, err := ask(ctx, req, up, dial, overTCP)
				heard <- verdict{up, raw, err}
			})
		}
	}
	var refusal []byte
	var errs []error
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for next(); len(pending) > 0; {
		select {
		case <-timer.C:
			f.holdGrudge(pending)
			next()
		case v := <-heard:
			delete(pending, v.from)
			if v.err == nil && !v.refused() {
				f.forgive(v.from)
				return v.raw, nil
			}
			if v.err == nil {
				if refusal = v.raw; len(todo) == 0 {
					return refusal, nil
				}
			}
			errs = append(errs, v.err)
			next()
		}
		timer.Reset(patience)
	}
	if refusal != nil {
		return refusal, nil
	}
	return nil, errors.Join(errs...)
}

// inOrder gives the upstreams to ask: each once, the first three, those that were silent lately at the end.
func (f *forwarder) inOrder(upstreams []netip.AddrPort) []netip.AddrPort {
	f.mu.Lock()
	defer f.mu.Unlock()
	var good, bad []netip.AddrPort
	for _, up := range upstreams {
		switch {
		case slices.Contains(good, up) || slices.Contains(bad, up) || len(good)+len(bad) == maxUpstreams:
		case time.Since(f.silent[up]) < grudge:
			bad = append(bad, up)
		default:
			good = append(good, up)
		}
	}
	return append(good, bad...)
}

func (f *forwarder) holdGrudge(silent map[netip.AddrPort]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for up := range silent {
		f.silent[up] = time.Now()
	}
}

func (f *forwarder) forgive(up netip.AddrPort) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.silent, up)
}

// ask sends a query to one server and waits for its answer, over the protocol the container used: an answer that was
// cut for UDP goes back as it is, and the container asks again over TCP.
func ask(ctx context.Context, req *dns.Msg, up netip.AddrPort, dial Dial, overTCP bool) ([]byte, error) {
	network := "udp"
	if overTCP {
		network = "tcp"
	}
	// An ID and a source port of our own choice: a container that knew both could answer for the server.
	out := req.Copy()
	out.Id = dns.Id()
	packed, err := out.Pack()
	if err != nil {
		return nil, fmt.Errorf("forward query: %w", err)
	}
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	nc, err := dial(ctx, network, up.String())
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", up, err)
	}
	defer nc.Close()
	// The context ends an exchange early by moving the deadline into the past.
	defer context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })()
	conn := &dns.Conn{Conn: nc, UDPSize: dns.MaxMsgSize}
	if _, err := conn.Write(packed); err != nil {
		return nil, fmt.Errorf("ask %s: %w", up, err)
	}
	for {
		raw, err := conn.ReadMsgHeader(nil)
		if err != nil && ctx.Err() == nil && errors.Is(err, dns.ErrShortRead) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("ask %s: %w", up, err)
		}
		if answers(raw, out) {
			binary.BigEndian.PutUint16(raw, req.Id)
			return raw, nil
		}
	}
}

// answers tells whether raw is a response to the query: its ID, and its question if it has one. Anything else is a
// stray or forged packet, to be passed over.
func answers(raw []byte, query *dns.Msg) bool {
	const headerSize = 12 // RFC 1035 section 4.1.1
	if len(raw) < headerSize || binary.BigEndian.Uint16(raw) != query.Id || raw[2]&0x80 == 0 {
		return false
	}
	if binary.BigEndian.Uint16(raw[4:]) == 0 {
		// Servers that refuse may leave the question out.
		return raw[3]&0xf != dns.RcodeSuccess
	}
	name, off, err := dns.UnpackDomainName(raw, headerSize)
	if err != nil || off+4 > len(raw) {
		return false
	}
	q := query.Question[0]
	return strings.EqualFold(name, q.Name) && binary.BigEndian.Uint16(raw[off:]) == q.Qtype &&
		binary.BigEndian.Uint16(raw[off+2:]) == q.Qclass
}
