// Package probe is the two ends of a measurement of a network: a server that takes what comes, and clients that say how
// much went through. The bench runs itself as either, on hosts and in containers.
package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// The server's ports, one for each kind of work.
const (
	portSink  = "7001" // reads and forgets
	portEcho  = "7002" // sends back a byte for each
	portClose = "7003" // accepts and closes
	portCount = "7004" // TCP tells how many datagrams UDP has had
)

// Published are the -p of a container with the server in it, ten thousand up, since the host may serve itself as well.
func Published() []string {
	var list []string
	for _, p := range []string{portSink, portEcho, portClose, portCount, portCount + "/udp"} {
		list = append(list, "-p", "1"+p[:4]+":"+p)
	}
	return list
}

// PublishedOn is the target of a server that a host publishes.
func PublishedOn(host string) string { return host + "+" }

// at is a server's address.
func at(host, port string) string {
	if bare, published := strings.CutSuffix(host, "+"); published {
		return net.JoinHostPort(bare, "1"+port)
	}
	return net.JoinHostPort(host, port)
}

// Main is "serve" or "KIND TARGET SECONDS"; it prints one number.
func Main(args []string) error {
	if len(args) == 1 && args[0] == "serve" {
		return serve()
	}
	if len(args) != 3 {
		return fmt.Errorf("probe: want serve, or KIND TARGET SECONDS, not %q", args)
	}
	secs, err := strconv.ParseFloat(args[2], 64)
	if err != nil {
		return err
	}
	work, ok := map[string]func(string, time.Duration) (float64, error){
		"tcp1": func(h string, d time.Duration) (float64, error) { return streams(h, 1, d) },
		"tcp4": func(h string, d time.Duration) (float64, error) { return streams(h, 4, d) },
		"udp":  datagrams, "rr": roundTrips, "conns": connections,
		"dns1":  func(n string, d time.Duration) (float64, error) { q, _, err := queries(n, 1, d); return q, err },
		"dns8":  func(n string, d time.Duration) (float64, error) { q, _, err := queries(n, 8, d); return q, err },
		"dns99": func(n string, d time.Duration) (float64, error) { _, p, err := queries(n, 8, d); return p, err },
	}[args[0]]
	if !ok {
		return fmt.Errorf("probe: unknown kind %q", args[0])
	}
	v, err := work(args[1], time.Duration(secs*float64(time.Second)))
	if err == nil {
		fmt.Println(v)
	}
	return err
}

func serve() error {
	var got atomic.Uint64
	pc, err := net.ListenPacket("udp", ":"+portCount)
	if err != nil {
		return err
	}
	failed := make(chan error, 8)
	go func() {
		b := make([]byte, 2048)
		for {
			if _, _, err := pc.ReadFrom(b); err != nil {
				failed <- err
				return
			}
			got.Add(1)
		}
	}()
	for port, handle := range map[string]func(net.Conn){
		portSink: func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		portEcho: func(c net.Conn) {
			_, _ = io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{c}, make([]byte, 64))
		},
		portClose: func(net.Conn) {},
		portCount: func(c net.Conn) { _ = binary.Write(c, binary.BigEndian, got.Load()) },
	} {
		ln, err := net.Listen("tcp", ":"+port)
		if err != nil {
			return err
		}
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					failed <- err
					return
				}
				go func() { handle(c); _ = c.Close() }()
			}
		}()
	}
	fmt.Println("serving")
	return <-failed
}

// streams gives Gbit/s.
func streams(host string, n int, d time.Duration) (float64, error) {
	var sent atomic.Int64
	errs := make(chan error, n)
	begin := time.Now()
	for range n {
		c, err := net.Dial("tcp", at(host, portSink))
		if err != nil {
			return 0, err
		}
		go func() {
			defer c.Close()
			b := make([]byte, 128<<10)
			for time.Since(begin) < d {
				k, err := c.Write(b)
				sent.Add(int64(k))
				if err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	var all error
	for range n {
		all = errors.Join(all, <-errs)
	}
	return float64(sent.Load()) * 8 / 1e9 / time.Since(begin).Seconds(), all
}

// datagrams gives how many of 64 bytes arrive in a second.
func datagrams(host string, d time.Duration) (float64, error) {
	before, err := counted(host)
	if err != nil {
		return 0, err
	}
	c, err := net.Dial("udp", at(host, portCount))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	b := make([]byte, 64)
	begin := time.Now()
	for time.Since(begin) < d {
		for range 64 {
			_, _ = c.Write(b) // a full queue is part of what is measured
		}
	}
	took := time.Since(begin).Seconds()
	after, err := counted(host)
	return float64(after-before) / took, err
}

func counted(host string) (n uint64, err error) {
	c, err := net.Dial("tcp", at(host, portCount))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	err = binary.Read(c, binary.BigEndian, &n)
	return n, err
}

// roundTrips gives the median time of a byte there and back, in µs.
func roundTrips(host string, d time.Duration) (float64, error) {
	c, err := net.Dial("tcp", at(host, portEcho))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	var took []float64
	b := make([]byte, 1)
	for begin := time.Now(); time.Since(begin) < d; {
		t := time.Now()
		if _, err := c.Write(b); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return 0, err
		}
		took = append(took, float64(time.Since(t).Nanoseconds())/1000)
	}
	return quantile(took, 0.5), nil
}

// connections gives how many are made and closed in a second, one after the other.
func connections(host string, d time.Duration) (float64, error) {
	n, begin := 0, time.Now()
	for ; time.Since(begin) < d; n++ {
		c, err := net.Dial("tcp", at(host, portClose))
		if err != nil {
			return 0, err
		}
		_, _ = c.Read(make([]byte, 1)) // until the other end has closed
		_ = c.Close()
	}
	return float64(n) / time.Since(begin).Seconds(), nil
}

// queries asks for a name at 127.0.0.11 and gives how many answers come in a second, and the 99th percentile of their
// times in ms. One that does not come in two seconds, or holds no address, is an error.
func queries(name string, clients int, d time.Duration) (rate, p99 float64, err error) {
	var mu sync.Mutex
	var took []float64
	var errs []error
	var wg sync.WaitGroup
	begin := time.Now()
	for range clients {
		wg.Go(func() {
			mine, err := ask(name, begin.Add(d))
			mu.Lock()
			defer mu.Unlock()
			took, errs = append(took, mine...), append(errs, err)
		})
	}
	wg.Wait()
	return float64(len(took)) / time.Since(begin).Seconds(), quantile(took, 0.99), errors.Join(errs...)
}

func ask(name string, until time.Time) (took []float64, err error) {
	c, err := net.Dial("udp", "127.0.0.11:53")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	conn := &dns.Conn{Conn: c}
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	for time.Now().Before(until) {
		t := time.Now()
		m.Id = dns.Id()
		if err := c.SetDeadline(t.Add(2 * time.Second)); err != nil {
			return took, err
		}
		if err := conn.WriteMsg(m); err != nil {
			return took, err
		}
		r, err := conn.ReadMsg()
		if err != nil {
			return took, err
		}
		if r.Id != m.Id || len(r.Answer) == 0 {
			return took, fmt.Errorf("no answer in %v", r)
		}
		took = append(took, float64(time.Since(t).Nanoseconds())/1e6)
	}
	return took, nil
}

func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return v[min(len(v)-1, int(q*float64(len(v))))]
}
