package portmap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// container is a server on loopback that says what it hears and from where: each connection's bytes when the client is
// done, each datagram at once.
func container(t *testing.T, name string) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(ln.Close(), pc.Close()) })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if b, err := io.ReadAll(c); err == nil {
					fmt.Fprintf(c, "%s heard %d bytes", name, len(b))
				}
			}()
		}
	}()
	go func() {
		b := make([]byte, 100)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(fmt.Appendf(nil, "%s heard %s", name, b[:n]), from)
		}
	}()
	return netip.MustParseAddrPort(ln.Addr().String())
}

// reserveOne holds a free port of both protocols on an address.
func reserveOne(t *testing.T, a *Allocator, ip string) uint16 {
	t.Helper()
	for range 20 {
		got, err := a.Reserve(context.Background(), "c", []Request{request("tcp", ip, 0, 0)})
		if err != nil {
			t.Fatal(err)
		}
		port := got[0].HostPort
		if _, err := a.Reserve(context.Background(), "c", []Request{request("udp", ip, port, port)}); err == nil {
			return port
		}
		a.Release("c")
	}
	t.Fatal("no port is free for both protocols")
	return 0
}

func targets(ip netip.Addr, port uint16, to netip.AddrPort) []Target {
	return []Target{{"tcp", ip, port, to}, {"udp", ip, port, to}}
}

// say sends over a network and gives the answer.
func say(network, addr, text string) (string, error) {
	c, err := (&net.Dialer{Timeout: time.Minute}).Dial(network, addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	if t, ok := c.(*net.TCPConn); ok {
		if err := t.CloseWrite(); err != nil {
			return "", err
		}
		b, err := io.ReadAll(c)
		return string(b), err
	}
	b := make([]byte, 100)
	n, err := c.Read(b)
	return string(b[:n]), err
}

// TestRelay leads clients of IPv6 to a container, to the next one when the port moves, and to nobody afterwards.
func TestRelay(t *testing.T) {
	for _, ip := range []string{"::1", "::", ""} {
		t.Run(ip, func(t *testing.T) {
			a := New()
			defer a.Release("c")
			port := reserveOne(t, a, ip)
			host := netip.Addr{}
			if ip != "" {
				host = netip.MustParseAddr(ip)
			}
			six, four := fmt.Sprintf("[::1]:%d", port), fmt.Sprintf("127.0.0.1:%d", port)
			first, second := container(t, "first"), container(t, "second")
			wants := func(name string) {
				t.Helper()
				big := string(make([]byte, 1<<20))
				if got, err := say("tcp", six, big); err != nil || got != name+" heard 1048576 bytes" {
					t.Errorf("tcp: %q, %v", got, err)
				}
				if got, err := say("udp", six, "hello"); err != nil || got != name+" heard hello" {
					t.Errorf("udp: %q, %v", got, err)
				}
			}
			refused := func() {
				t.Helper()
				for _, addr := range []string{six, four} {
					if _, err := say("tcp", addr, "x"); !errors.Is(err, syscall.ECONNREFUSED) {
						t.Errorf("%s: %v", addr, err)
					}
				}
			}
			refused()
			for range 2 { // stated twice is as once
				if err := a.Relay("ep1", targets(host, port, first)); err != nil {
					t.Fatal(err)
				}
			}
			wants("first")
			if got, err := say("tcp", four, "x"); err == nil && got != "" {
				t.Errorf("IPv4 is relayed: %q", got)
			}
			// What is under way ends when the port moves.
			under, err := net.Dial("tcp", six)
			if err != nil {
				t.Fatal(err)
			}
			defer under.Close()
			wants("first") // whoever came before has been taken in
			if err := a.Relay("ep1", nil); err != nil {
				t.Fatal(err)
			}
			_ = under.SetDeadline(time.Now().Add(time.Minute))
			if _, err := under.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("a connection to a port that is withdrawn: %v", err)
			}
			refused()
			if err := a.Relay("ep2", targets(host, port, second)); err != nil {
				t.Fatal(err)
			}
			wants("second")
			if _, err := a.Reserve(context.Background(), "other", []Request{request("tcp", ip, port, port)}); err == nil {
				t.Error("a port that is relayed is given away")
			}
			if ln, err := net.Listen("tcp6", six); err == nil {
				ln.Close()
				t.Error("a port that is relayed can be had by another process")
			}
			if err := a.Relay("ep2", targets(host, port, netip.MustParseAddrPort("127.0.0.1:1"))); err != nil {
				t.Fatal(err)
			}
			if _, err := say("tcp", six, "x"); err == nil {
				t.Error("a container that does not listen answers")
			}
			a.Release("c")
			refused()
			if n := len(a.relay.doors); n != 0 {
				t.Errorf("%d doors are left", n)
			}
		})
	}
}

// TestRelayOfAnother leaves a port alone that the owner does not hold, as one whose socket could not be had again.
func TestRelayOfAnother(t *testing.T) {
	a := New()
	if err := a.Relay("ep", targets(netip.IPv6Loopback(), 9, container(t, "c"))); err != nil {
		t.Fatal(err)
	}
	if len(a.relay.doors) != 0 {
		t.Error("a port is relayed that nobody holds")
	}
}
