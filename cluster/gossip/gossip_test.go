package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// wire is an in-memory network: packets and streams between numbered hosts, some pairs of which may be cut.
type wire struct {
	mu   sync.Mutex
	ends map[netip.AddrPort]*end
	cut  func(a, b netip.AddrPort) bool
}

func newWire() *wire { return &wire{ends: map[netip.AddrPort]*end{}} }

func (w *wire) setCut(cut func(a, b netip.AddrPort) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
}

// reach finds the other end, unless the pair is cut.
func (w *wire) reach(from, to netip.AddrPort) *end {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut != nil && w.cut(from, to) {
		return nil
	}
	return w.ends[to]
}

// end is one host's end of the wire: Network, its packets and its streams.
type end struct {
	wire    *wire
	addr    netip.AddrPort
	packets chan packet
	streams chan net.Conn
	done    chan struct{}
	once    sync.Once
}

type packet struct {
	from netip.AddrPort
	b    []byte
}

func (w *wire) end(n int) *end {
	e := &end{wire: w, addr: addrOf(n), packets: make(chan packet, 1024), streams: make(chan net.Conn), done: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ends[e.addr] = e
	return e
}

func addrOf(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), 7946)
}

func (e *end) Dial(ctx context.Context, _, addr string) (net.Conn, error) {
	to := e.wire.reach(e.addr, netip.MustParseAddrPort(addr))
	if to == nil {
		<-ctx.Done() // a cut line answers nothing
		return nil, ctx.Err()
	}
	near, far := net.Pipe()
	select {
	case to.streams <- far:
		return near, nil
	case <-to.done:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
func (e *end) Streams() net.Listener   { return streamEnd{e} }
func (e *end) Packets() net.PacketConn { return packetEnd{e} }

func (e *end) close() error {
	e.once.Do(func() {
		close(e.done)
		e.wire.mu.Lock()
		delete(e.wire.ends, e.addr)
		e.wire.mu.Unlock()
	})
	return nil
}

type streamEnd struct{ *end }

func (s streamEnd) Accept() (net.Conn, error) {
	select {
	case c := <-s.streams:
		return c, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}
func (s streamEnd) Addr() net.Addr { return net.TCPAddrFromAddrPort(s.addr) }
func (s streamEnd) Close() error   { return s.close() }

type packetEnd struct{ *end }

func (p packetEnd) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case pk := <-p.packets:
		return copy(b, pk.b), net.UDPAddrFromAddrPort(pk.from), nil
	case <-p.done:
		return 0, nil, net.ErrClosed
	}
}

func (p packetEnd) WriteTo(b []byte, to net.Addr) (int, error) {
	if e := p.wire.reach(p.addr, to.(*net.UDPAddr).AddrPort()); e != nil {
		select {
		case e.packets <- packet{p.addr, slices.Clone(b)}:
		default: // as a full socket buffer does
		}
	}
	return len(b), nil
}
func (p packetEnd) LocalAddr() net.Addr              { return net.UDPAddrFromAddrPort(p.addr) }
func (p packetEnd) SetDeadline(time.Time) error      { return nil }
func (p packetEnd) SetReadDeadline(time.Time) error  { return nil }
func (p packetEnd) SetWriteDeadline(time.Time) error { return nil }
func (p packetEnd) Close() error                     { return p.close() }

// member is one host's gossip and what it was told.
type member struct {
	*Gossip
	id    string
	peers []Peer

	mu    sync.Mutex
	downs map[string]time.Time
	heard map[string]bool // states received
}

func (m *member) MemberUp(string) {}
func (m *member) MemberDown(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.downs[id] = time.Now()
}
func (m *member) State() []byte { return []byte(m.id) }
func (m *member) StateFrom(b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard[string(b)] = true
}
func (m *member) Peers() []Peer { return m.peers }

func (m *member) downAt(id string) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.downs[id]
}

func (m *member) hasHeard(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.heard[id]
}

func start(t *testing.T, w *wire, n, of int, meta Meta, keys ...[]byte) *member {
	t.Helper()
	m := &member{id: idOf(n), downs: map[string]time.Time{}, heard: map[string]bool{}}
	for i := 1; i <= of; i++ {
		m.peers = append(m.peers, Peer{ID: idOf(i), Addr: addrOf(i)})
	}
	if len(keys) == 0 {
		keys = [][]byte{key(1)}
	}
	g, err := Start(Config{ID: m.id, Addr: addrOf(n), Meta: meta, Keys: keys, Network: w.end(n), Layer: m, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	m.Gossip = g
	return m
}

func idOf(n int) string { return fmt.Sprintf("node%d", n) }
func key(b byte) []byte { return slices.Repeat([]byte{b}, 32) }

func metaOf(cluster, epoch string) Meta { return Meta{Cluster: cluster, Epoch: epoch, Name: "x"} }

func stopAll(t *testing.T, ms []*member) {
	t.Helper()
	for _, m := range ms {
		if err := m.Stop(); err != nil {
			t.Error(err)
		}
	}
	time.Sleep(time.Minute) //nolint:forbidigo // of the bubble: memberlist's goroutines see that it stopped when their timers fire
}

// see waits, in the bubble's time, until ok.
func see(t *testing.T, within time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > within {
			t.Fatalf("not within %v: %s", within, what)
		}
		time.Sleep(10 * time.Millisecond) //nolint:forbidigo // of the bubble
	}
	return time.Since(begin)
}

func allSee(ms []*member, sees func(a, b *member) bool) bool {
	for _, a := range ms {
		for _, b := range ms {
			if a.Alive(b.id) != sees(a, b) {
				return false
			}
		}
	}
	return true
}

func everybody(_, _ *member) bool { return true }

// TestJoinNobody: who cannot be called is named in one line.
func TestJoinNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := start(t, newWire(), 1, 1, metaOf("c", "1.a"))
		_, err := a.Join(t.Context(), []Peer{{ID: "x", Addr: addrOf(2)}})
		if want := "join gossip: failed to join 10.0.0.2:7946: context deadline exceeded: unavailable"; err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
		stopAll(t, []*member{a})
	})
}

// TestFormPartitionHeal: members that know of each other find each other without being told to join; two halves mark
// each other dead, which takes longer than one death (TestDeadHost): each probe that meets a host of the other half slows
// the prober's next ones; they heal although the partition lasts longer than memberlist remembers the dead.
func TestFormPartitionHeal(t *testing.T) {
	for _, n := range []int{3, 10} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWire()
				var ms []*member
				for i := 1; i <= n; i++ {
					ms = append(ms, start(t, w, i, n, metaOf("c", "1.a")))
				}
				formed := see(t, 10*time.Second, "all see all", func() bool { return allSee(ms, everybody) })
				left := func(a netip.AddrPort) bool { return int(a.Addr().As4()[3]) <= n/2 }
				w.setCut(func(a, b netip.AddrPort) bool { return left(a) != left(b) })
				cut := see(t, 20*time.Second, "the halves mark each other dead", func() bool {
					return allSee(ms, func(a, b *member) bool { return left(a.cfg.Addr) == left(b.cfg.Addr) })
				})
				time.Sleep(2 * time.Minute) //nolint:forbidigo // of the bubble; memberlist forgets the dead after 30 s
				w.setCut(nil)
				healed := see(t, 15*time.Second, "all see all again", func() bool { return allSee(ms, everybody) })
				t.Logf("formed in %v, cut seen in %v, healed in %v", formed, cut, healed)
				stopAll(t, ms)
			})
		})
	}
}

// TestDeadHost: one host vanishes without a word; each of the others knows within five seconds.
func TestDeadHost(t *testing.T) {
	for _, n := range []int{2, 3, 10, 25} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWire()
				var ms []*member
				for i := 1; i <= n; i++ {
					ms = append(ms, start(t, w, i, n, metaOf("c", "1.a")))
				}
				see(t, 10*time.Second, "all see all", func() bool { return allSee(ms, everybody) })
				dead := addrOf(n)
				w.setCut(func(a, b netip.AddrPort) bool { return a == dead || b == dead })
				died := time.Now()
				see(t, 10*time.Second, "the others know", func() bool {
					return !slices.ContainsFunc(ms[:n-1], func(m *member) bool { return m.Alive(idOf(n)) })
				})
				for _, m := range ms[:n-1] {
					if d := m.downAt(idOf(n)).Sub(died); d > 5*time.Second {
						t.Errorf("%s knew after %v", m.id, d)
					}
					for _, o := range ms[:n-1] {
						if !m.Alive(o.id) {
							t.Errorf("%s thinks %s dead as well", m.id, o.id)
						}
					}
				}
				t.Logf("all know after %v", time.Since(died))
				stopAll(t, ms)
			})
		})
	}
}

// TestRestartedAtAnotherAddress: the ID is the node, not the address.
func TestRestartedAtAnotherAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		a, b := start(t, w, 1, 2, metaOf("c", "1.a")), start(t, w, 2, 2, metaOf("c", "1.a"))
		see(t, 10*time.Second, "both see both", func() bool { return a.Alive(b.id) && b.Alive(a.id) })
		if err := b.Stop(); err != nil {
			t.Fatal(err)
		}
		moved := &member{id: b.id, peers: b.peers, downs: map[string]time.Time{}, heard: map[string]bool{}}
		var err error
		moved.Gossip, err = Start(Config{ID: b.id, Addr: addrOf(9), Meta: metaOf("c", "1.a"), Keys: [][]byte{key(1)}, Network: w.end(9), Layer: moved, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		see(t, 3*pushPull, "they found each other", func() bool {
			return !a.downAt(b.id).IsZero() && a.Alive(b.id) && moved.Alive(a.id)
		})
		stopAll(t, []*member{a, moved})
	})
}

// TestStrangersStayOut: another cluster, another epoch, another key.
func TestStrangersStayOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		a := start(t, w, 1, 5, metaOf("c", "1.a"))
		b := start(t, w, 2, 5, metaOf("c", "1.a"))
		strangers := []*member{
			start(t, w, 3, 5, metaOf("other", "1.a")),
			start(t, w, 4, 5, metaOf("c", "2.b")),
			start(t, w, 5, 5, metaOf("c", "1.a"), key(2)),
		}
		see(t, 10*time.Second, "members see each other", func() bool { return a.Alive(b.id) && b.Alive(a.id) })
		time.Sleep(time.Minute) //nolint:forbidigo // of the bubble: every retry there is has happened
		for _, s := range strangers {
			if a.Alive(s.id) || s.Alive(a.id) || a.hasHeard(s.id) && s.cfg.Keys[0][0] != 1 {
				t.Errorf("%s got in", s.id)
			}
		}
		stopAll(t, append(strangers, a, b))
	})
}

// TestStateIsExchanged: what the layer above tells reaches the others, and again as time goes by.
func TestStateIsExchanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		a, b := start(t, w, 1, 2, metaOf("c", "1.a")), start(t, w, 2, 2, metaOf("c", "1.a"))
		see(t, 10*time.Second, "states exchanged", func() bool { return a.hasHeard(b.id) && b.hasHeard(a.id) })
		a.mu.Lock()
		clear(a.heard)
		a.mu.Unlock()
		see(t, 2*pushPull+time.Second, "states exchanged again", func() bool { return a.hasHeard(b.id) })
		stopAll(t, []*member{a, b})
	})
}

// TestKeysRotate: packets go on while one member after the other takes the new key.
func TestKeysRotate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		a, b := start(t, w, 1, 2, metaOf("c", "1.a")), start(t, w, 2, 2, metaOf("c", "1.a"))
		see(t, 10*time.Second, "both see both", func() bool { return a.Alive(b.id) && b.Alive(a.id) })
		for _, keys := range [][][]byte{{key(1), key(2)}, {key(2), key(1)}, {key(2)}} {
			for _, m := range []*member{a, b} {
				if err := m.SetKeys(keys); err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Second) //nolint:forbidigo // of the bubble
			}
		}
		if !a.downAt(b.id).IsZero() || !b.downAt(a.id).IsZero() || !a.Alive(b.id) {
			t.Error("a member was lost on the way")
		}
		if err := a.SetKeys(nil); err == nil {
			t.Error("no keys at all were accepted")
		}
		stopAll(t, []*member{a, b})
	})
}

// TestLeaveIsNotFailure: who leaves is gone at once.
func TestLeaveIsNotFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		a, b := start(t, w, 1, 2, metaOf("c", "1.a")), start(t, w, 2, 2, metaOf("c", "1.a"))
		see(t, 10*time.Second, "both see both", func() bool { return a.Alive(b.id) && b.Alive(a.id) })
		if err := b.Leave(time.Second); err != nil {
			t.Fatal(err)
		}
		see(t, time.Second, "a knows", func() bool { return !a.Alive(b.id) })
		stopAll(t, []*member{a, b})
	})
}

func TestLogLines(t *testing.T) {
	for line, want := range map[string]struct {
		level slog.Level
		text  string
	}{
		"[ERR] memberlist: Failed to send ping: x\n": {slog.LevelWarn, "Failed to send ping: x"},
		"[ERROR] memberlist: y":                      {slog.LevelWarn, "y"},
		"[WARN] memberlist: Refuting":                {slog.LevelDebug, "Refuting"},
		"[ERR] Failed to shutdown transport: z":      {slog.LevelWarn, "Failed to shutdown transport: z"},
		"Err: Could not set the deadline: q":         {slog.LevelWarn, "Could not set the deadline: q"},
		"no prefix":                                  {slog.LevelDebug, "no prefix"},
		"":                                           {slog.LevelDebug, ""},
	} {
		if level, text := splitLine([]byte(line)); level != want.level || text != want.text {
			t.Errorf("%q: %v %q", line, level, text)
		}
	}
}

func TestMetaTooLong(t *testing.T) {
	if _, err := (Meta{Cluster: "c", Epoch: "e", Name: string(slices.Repeat([]byte("n"), 600))}).encode(); err == nil {
		t.Error("no error")
	}
}

func FuzzDecodeMeta(f *testing.F) {
	b, _ := metaOf("c", "1.a").encode()
	f.Add(b)
	f.Add([]byte(`{"c":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := DecodeMeta(b); err == nil && (m.Cluster == "" || m.Epoch == "") {
			t.Fatalf("%q: %+v", b, m)
		}
	})
}

// TestStoppedIsSilent stops a member while it suspects another, at every moment of a suspicion. What it finds out then is
// no news for whoever gossips for this host next.
func TestStoppedIsSilent(t *testing.T) {
	for wait := time.Duration(0); wait < 5*time.Second; wait += 250 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			w := newWire()
			ms := []*member{start(t, w, 1, 3, metaOf("c", "1.a")), start(t, w, 2, 3, metaOf("c", "1.a")), start(t, w, 3, 3, metaOf("c", "1.a"))}
			time.Sleep(10 * time.Second) //nolint:forbidigo // of the bubble
			w.setCut(func(a, b netip.AddrPort) bool { return a == addrOf(3) || b == addrOf(3) })
			time.Sleep(wait) //nolint:forbidigo // of the bubble
			began := time.Now()
			stopAll(t, ms[:1])
			time.Sleep(time.Minute) //nolint:forbidigo // of the bubble
			if down := ms[0].downAt(idOf(3)); down.After(began) {
				t.Errorf("stopped %v after the cut, it says %v later that a member is down", wait, down.Sub(began))
			}
			stopAll(t, ms[1:])
			time.Sleep(time.Minute) //nolint:forbidigo // of the bubble
		})
	}
}
