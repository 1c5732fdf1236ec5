package transport

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster/identity"
)

// book is the members that a host knows.
type book map[string]netip.AddrPort

func (b book) Authorize(_ context.Context, id string, _ netip.AddrPort) error {
	if _, ok := b[id]; !ok {
		return errors.Join(errors.New("not a member"), errdefs.ErrPermissionDenied)
	}
	return nil
}

func (b book) Address(id string) (netip.AddrPort, bool) { a, ok := b[id]; return a, ok }

// pair of hosts, in one cluster unless told otherwise.
func member(t *testing.T, ca *identity.Authority, fence Fence, peers book) (*Transport, string) {
	t.Helper()
	cred := credentials(t, ca, ca)
	tr, err := Listen(t.Context(), Config{Addr: netip.MustParseAddrPort("127.0.0.1:0"), Credentials: cred, Fence: fence, Peers: peers, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	peers[cred.ID] = tr.Addr()
	return tr, cred.ID
}

func authority(t *testing.T) *identity.Authority {
	t.Helper()
	ca, err := identity.NewAuthority("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// credentials signed by one authority and showing another.
func credentials(t *testing.T, signer, shown *identity.Authority) *identity.Credentials {
	t.Helper()
	n, err := identity.NewNode()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := n.Request()
	if err != nil {
		t.Fatal(err)
	}
	der, _, err := signer.Sign(csr, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c, err := n.Credentials(der, signer.Cert.Raw)
	if err != nil {
		t.Fatal(err)
	}
	c.Cert.Certificate[1] = shown.Cert.Raw
	c.CA = shown.Cert
	return c
}

func TestProtocolsFindTheirListeners(t *testing.T) {
	ca, peers, fence := authority(t), book{}, Fence{Cluster: "c", Epoch: "1.a"}
	a, aID := member(t, ca, fence, peers)
	b, bID := member(t, ca, fence, peers)
	for _, p := range []Protocol{Gossip, Raft, RPC} {
		out, err := a.Dial(t.Context(), bID, p)
		if err != nil {
			t.Fatal(err)
		}
		in, err := b.Listener(p).Accept()
		if err != nil {
			t.Fatal(err)
		}
		if peer := in.(*Conn).Peer; peer != aID {
			t.Errorf("%s: peer %s, want %s", p, peer, aID)
		}
		if out.ConnectionState().Version != tls.VersionTLS13 {
			t.Errorf("%s: not TLS 1.3", p)
		}
		go io.WriteString(out, "hello")
		buf := make([]byte, 5)
		if _, err := io.ReadFull(in, buf); err != nil || string(buf) != "hello" {
			t.Errorf("%s: %q, %v", p, buf, err)
		}
	}
	n := b.count()
	b.Drop(aID)
	if n != 3 || b.count() != 0 {
		t.Errorf("connections: %d, after Drop %d", n, b.count())
	}
}

func (t *Transport) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.conns)
}

func TestRefusals(t *testing.T) {
	ca, fence := authority(t), Fence{Cluster: "c", Epoch: "2.b", Past: []string{"1.a"}}
	peers := book{}
	b, bID := member(t, ca, fence, peers)
	for name, tc := range map[string]struct {
		ca    *identity.Authority
		fence Fence
		known bool
		id    string
		says  string
	}{
		"not a member":      {ca, fence, false, bID, "not a member"},
		"another cluster":   {ca, Fence{Cluster: "d", Epoch: "2.b"}, true, bID, "another cluster"},
		"before a takeover": {ca, Fence{Cluster: "c", Epoch: "1.a"}, true, bID, "from before a takeover"},
		"two takeovers":     {ca, Fence{Cluster: "c", Epoch: "2.x"}, true, bID, "both sides"},
		"another authority": {authority(t), fence, true, bID, "certificate"},
		"not whom it meant": {ca, fence, true, strings.Repeat("0", 25), "certificate"},
	} {
		own := book{bID: b.Addr(), tc.id: b.Addr()}
		a, aID := member(t, tc.ca, tc.fence, own)
		delete(peers, aID)
		if tc.known {
			peers[aID] = a.Addr()
		}
		_, err := a.Dial(t.Context(), tc.id, RPC)
		if err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: err = %v", name, err)
		}
	}
	a, _ := member(t, ca, fence, book{})
	if _, err := a.Dial(t.Context(), bID, RPC); !errdefs.IsNotFound(err) {
		t.Errorf("unknown address: %v", err)
	}
}

// TestNoCertificateGetsNowhereButJoining talks TLS without a certificate, and no TLS at all.
func TestNoCertificateGetsNowhereButJoining(t *testing.T) {
	ca, peers := authority(t), book{}
	b, _ := member(t, ca, Fence{Cluster: "c", Epoch: "1.a"}, peers)
	for _, protos := range [][]string{{string(RPC)}, {string(Raft)}, {string(Gossip)}, {string(RPC), string(Join)}, {"h2"}, nil} {
		c, err := tls.Dial("tcp", b.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: protos})
		if err == nil { // TLS 1.3 tells a client of its missing certificate after the handshake
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		if err == nil {
			t.Errorf("%v: got in", protos)
		}
	}
	raw, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	io.WriteString(raw, "GET / HTTP/1.0\r\n\r\n")
	if got, _ := io.ReadAll(raw); len(got) > 16 {
		t.Errorf("answered %q", got)
	}
	old, err := tls.Dial("tcp", b.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{string(Join)}, MaxVersion: tls.VersionTLS12})
	if err == nil {
		old.Close()
		t.Error("TLS 1.2 was accepted")
	}
}

// TestForeignClientCertificate: a caller that trusts this cluster and claims a member's ID, with a certificate that
// another authority gave out, gets nowhere.
func TestForeignClientCertificate(t *testing.T) {
	ca, peers, fence := authority(t), book{}, Fence{Cluster: "c", Epoch: "1.a"}
	b, bID := member(t, ca, fence, peers)
	forged := credentials(t, authority(t), ca)
	peers[forged.ID] = b.Addr() // even if it were a member's ID
	pool := x509.NewCertPool()
	pool.AddCert(ca.Cert)
	c, err := tls.Dial("tcp", b.Addr().String(), &tls.Config{
		Certificates: []tls.Certificate{forged.Cert}, RootCAs: pool, ServerName: bID, NextProtos: []string{string(RPC)},
	})
	if err == nil {
		defer c.Close()
		var a answer
		if err = writeFrame(c, fence); err == nil {
			err = readFrame(c, &a)
		}
	}
	if err == nil {
		t.Error("a forged certificate was answered")
	}
}

func TestDialJoin(t *testing.T) {
	ca, peers := authority(t), book{}
	b, _ := member(t, ca, Fence{Cluster: "c", Epoch: "1.a"}, peers)
	c, err := DialJoin(t.Context(), Kernel{}, b.Addr().String(), identity.Digest(ca.Cert), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in, err := b.Listener(Join).Accept()
	if err != nil || in.(*Conn).Peer != "" {
		t.Fatalf("peer %q, err %v", in.(*Conn).Peer, err)
	}
	if _, err := DialJoin(t.Context(), Kernel{}, b.Addr().String(), identity.Digest(authority(t).Cert), time.Now()); !errors.Is(err, ErrForeign) {
		t.Errorf("another cluster: %v", err)
	}
	// An impostor shows the right authority, which has not signed its certificate.
	fake := credentials(t, authority(t), ca)
	imp, err := Listen(t.Context(), Config{Addr: netip.MustParseAddrPort("127.0.0.1:0"), Credentials: fake, Peers: peers, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer imp.Close()
	if c, err := DialJoin(t.Context(), Kernel{}, imp.Addr().String(), identity.Digest(ca.Cert), time.Now()); err == nil {
		c.Close()
		t.Error("an impostor was believed")
	}
}

func TestBindsOnlyItsAddress(t *testing.T) {
	b, _ := member(t, authority(t), Fence{Cluster: "c", Epoch: "1.a"}, book{})
	if got := b.Addr().Addr(); got != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("listens on %v", got)
	}
	if u := b.Packets().LocalAddr().(*net.UDPAddr).AddrPort(); u != b.Addr() {
		t.Errorf("UDP %v, TCP %v", u, b.Addr())
	}
	if c, err := net.Dial("tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), b.Addr().Port()).String()); err == nil {
		c.Close()
		t.Error("listens on another address too")
	}
	_, err := Listen(t.Context(), Config{Addr: b.Addr(), Credentials: b.cfg.Credentials, Log: slog.New(slog.DiscardHandler)})
	if !errdefs.IsUnavailable(err) {
		t.Errorf("taken port: %v", err)
	}
}

func FuzzReadFrame(f *testing.F) {
	var b bytes.Buffer
	writeFrame(&b, Fence{Cluster: "c", Epoch: "1.a"})
	f.Add(b.Bytes())
	f.Add([]byte{0xff, 0xff})
	f.Add([]byte{0, 2, '{', '}'})
	f.Fuzz(func(t *testing.T, b []byte) {
		var theirs Fence
		if err := readFrame(bytes.NewReader(b), &theirs); err != nil {
			return
		}
		own := Fence{Cluster: "c", Epoch: "1.a"}
		if err := own.Check(theirs); (err == nil) != (theirs.Cluster == own.Cluster && theirs.Epoch == own.Epoch) {
			t.Fatalf("%+v: %v", theirs, err)
		}
	})
}

// TestFence: whose past is whose, whatever the counters say.
func TestFence(t *testing.T) {
	first := Fence{Cluster: "c", Epoch: "1.a"}
	b := Fence{Cluster: "c", Epoch: "2.b", Past: []string{"1.a"}}
	x := Fence{Cluster: "c", Epoch: "2.x", Past: []string{"1.a"}}
	again := Fence{Cluster: "c", Epoch: "3.y", Past: []string{"1.a", "2.x"}}
	merged := Fence{Cluster: "c", Epoch: "2.b", Past: []string{"1.a", "2.x"}}
	for _, c := range []struct {
		what      string
		own, them Fence
		want      Relation
	}{
		{"oneself", b, b, Same},
		{"one that knows more of the past", b, merged, Same},
		{"another cluster", b, Fence{Cluster: "d", Epoch: "2.b"}, Foreign},
		{"who has slept", b, first, Behind},
		{"who has slept through two", again, first, Behind},
		{"having slept", first, b, Ahead},
		{"both taken over", b, x, Split},
		{"one of them twice: more is not right", b, again, Split},
		{"the other way round", again, b, Split},
		{"who was given up", merged, x, Behind},
		{"having been given up", x, merged, Ahead},
		{"no epoch at all", b, Fence{Cluster: "c"}, Split},
	} {
		if got := c.own.Compare(c.them); got != c.want {
			t.Errorf("%s: %d, want %d", c.what, got, c.want)
		}
		if err := c.own.Check(c.them); (err == nil) != (c.want == Same) || err != nil && !errdefs.IsPermissionDenied(err) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

// TestRejoinProtocol lets a node from before a takeover, or from beside it, say one thing, and one from after it nothing.
func TestRejoinProtocol(t *testing.T) {
	ca := authority(t)
	for name, c := range map[string]struct {
		theirs Fence
		ok     bool
	}{
		"from before":        {Fence{Cluster: "c", Epoch: "1.a"}, true},
		"from beside":        {Fence{Cluster: "c", Epoch: "2.x", Past: []string{"1.a"}}, true},
		"from after":         {Fence{Cluster: "c", Epoch: "3.d", Past: []string{"1.a", "2.b"}}, false},
		"of another cluster": {Fence{Cluster: "d", Epoch: "1.a"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			peers := book{}
			met := make(chan Fence, 4)
			note := func(_ string, f Fence, _ netip.AddrPort) { met <- f }
			b, bID := member(t, ca, Fence{Cluster: "c", Epoch: "2.b", Past: []string{"1.a"}}, peers)
			a, aID := member(t, ca, c.theirs, peers)
			a.cfg.Met, b.cfg.Met = note, note
			peers[aID], peers[bID] = a.Addr(), b.Addr()
			go func() {
				if in, err := b.Listener(Rejoin).Accept(); err == nil {
					in.Close()
				}
			}()
			conn, err := a.Dial(t.Context(), bID, Rejoin)
			if (err == nil) != c.ok {
				t.Errorf("rejoin: %v", err)
			}
			if err == nil {
				conn.Close()
			}
			if _, err := a.Dial(t.Context(), bID, RPC); !errdefs.IsPermissionDenied(err) || errors.Is(err, ErrFenced) != (c.theirs.Cluster == "c") {
				t.Errorf("anything else: %v", err)
			}
			if c.theirs.Cluster == "c" {
				seen := map[string]bool{(<-met).Epoch: true, (<-met).Epoch: true}
				if !seen["2.b"] || !seen[c.theirs.Epoch] {
					t.Errorf("met %v", seen)
				}
			}
		})
	}
}
