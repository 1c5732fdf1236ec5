// Package probe is the two ends of a measurement of a network: a server that takes what comes, and clients that say how
// much went through. The bench runs itself as either, on hosts and in containers.
package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// The server's ports, one for each kind of work.
const (
	portSink   = "7001" // reads and forgets
	portEcho   = "7002" // sends back a byte for each
	portClose  = "7003" // accepts and closes
	portCount  = "7004" // TCP tells a tally, of which UDP's datagrams are a part
	portSource = "7005" // sends until nobody reads
)

// Published are the -p of a container with the server in it, ten thousand up, since the host may serve itself as well.
func Published() []string {
	var list []string
	for _, p := range []string{portSink, portEcho, portClose, portCount, portCount + "/udp", portSource} {
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

// Where the two ends run: what moves much has a processor for each end, what goes there and back has one for both, so that
// no end's waking on the other's processor is measured.
func clientCPU() int { return 0 }
func serverCPU() int { return runtime.NumCPU() - 1 }

// Main is "serve" or "KIND TARGET SECONDS"; it prints one number, for streams a second one: the processor time of both
// ends in seconds per GB.
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
	work, ok := map[string]func(string, time.Duration) ([]float64, error){
		"tcp1": streams(1, false), "tcp4": streams(4, false), "tcp1back": streams(1, true), "tcp4back": streams(4, true),
		"udp": one(datagrams), "rr": one(roundTrips), "conns": one(connections),
		"dns1": queries(1), "dns8": queries(8),
	}[args[0]]
	if !ok {
		return fmt.Errorf("probe: unknown kind %q", args[0])
	}
	if err := pinProcess(clientCPU()); err != nil && !strings.HasPrefix(args[0], "dns") {
		return err
	}
	v, err := work(args[1], time.Duration(secs*float64(time.Second)))
	if err != nil {
		return err
	}
	_, err = fmt.Println(strings.Trim(fmt.Sprint(v), "[]"))
	return err
}

// one is the work that gives one number.
func one(work func(string, time.Duration) (float64, error)) func(string, time.Duration) ([]float64, error) {
	return func(host string, d time.Duration) ([]float64, error) {
		v, err := work(host, d)
		return []float64{v}, err
	}
}

// tally is what a server has done so far.
type tally struct {
	Datagrams uint64
	CPU       int64 // its processor time, in ns
}

func serve() error {
	if err := pinProcess(serverCPU()); err != nil {
		return err
	}
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
		portSource: func(c net.Conn) {
			b := make([]byte, blockSize)
			for err := error(nil); err == nil; {
				_, err = c.Write(b)
			}
		},
		portEcho:  func(c net.Conn) { _ = echo(c) },
		portCount: func(c net.Conn) { _ = binary.Write(c, binary.BigEndian, tally{got.Load(), ownCPU()}) },
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
	ln, err := net.Listen("tcp", ":"+portClose)
	if err != nil {
		return err
	}
	go func() { failed <- blocking(ln, acceptAndClose) }()
	if _, err := fmt.Println("serving"); err != nil {
		return err
	}
	return <-failed
}

// blockSize is how much a stream's end writes or reads at once.
const blockSize = 128 << 10

// streams gives Gbit/s, and the processor time of both ends in seconds per GB. back is from the server to the client.
func streams(n int, back bool) func(host string, d time.Duration) ([]float64, error) {
	port, move := portSink, net.Conn.Write
	if back {
		port, move = portSource, net.Conn.Read
	}
	return func(host string, d time.Duration) ([]float64, error) {
		var conns []net.Conn
		for range n {
			c, err := net.Dial("tcp", at(host, port))
			if err != nil {
				return nil, err
			}
			defer c.Close()
			conns = append(conns, c)
		}
		before, err := tallied(host)
		if err != nil {
			return nil, err
		}
		used, begin := ownCPU(), time.Now()
		var moved atomic.Int64
		var g errgroup.Group
		for _, c := range conns {
			g.Go(func() error {
				b := make([]byte, blockSize)
				for time.Since(begin) < d {
					k, err := move(c, b)
					moved.Add(int64(k))
					if err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return nil, err
		}
		took, used := time.Since(begin).Seconds(), ownCPU()-used
		after, err := tallied(host)
		gigabytes := float64(moved.Load()) / 1e9
		return []float64{gigabytes * 8 / took, float64(used+after.CPU-before.CPU) / 1e9 / gigabytes}, err
	}
}

// datagrams gives how many of 64 bytes arrive in a second.
func datagrams(host string, d time.Duration) (float64, error) {
	before, err := tallied(host)
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
	after, err := tallied(host)
	return float64(after.Datagrams-before.Datagrams) / took, err
}

func tallied(host string) (t tally, err error) {
	c, err := net.Dial("tcp", at(host, portCount))
	if err != nil {
		return t, err
	}
	defer c.Close()
	err = binary.Read(c, binary.BigEndian, &t)
	return t, err
}

// roundTrips gives the median time of a byte there and back, in µs.
func roundTrips(host string, d time.Duration) (float64, error) {
	c, err := net.Dial("tcp", at(host, portEcho))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	var took []float64
	err = blocking(c, func(fd int) error {
		b := make([]byte, 1)
		for begin := time.Now(); time.Since(begin) < d; {
			t := time.Now()
			if _, err := unix.Write(fd, b); err != nil {
				return err
			}
			if n, err := unix.Read(fd, b); err != nil || n == 0 {
				return errors.Join(io.ErrUnexpectedEOF, err)
			}
			took = append(took, float64(time.Since(t).Nanoseconds())/1000)
		}
		return nil
	})
	return quantile(took, 0.5), err
}

// echo sends back what comes, on the client's processor.
func echo(c net.Conn) error {
	return blocking(c, func(fd int) error {
		b := make([]byte, 64)
		for {
			n, err := unix.Read(fd, b)
			if err != nil || n == 0 {
				return err
			}
			if _, err := unix.Write(fd, b[:n]); err != nil {
				return err
			}
		}
	})
}

// connections gives how many are made and closed in a second, one after the other, each in the median time: so what others
// do on the processor meanwhile does not count.
func connections(host string, d time.Duration) (float64, error) {
	to, err := net.ResolveTCPAddr("tcp4", at(host, portClose))
	if err != nil {
		return 0, err
	}
	var took []float64
	err = pinned(func() error {
		for begin := time.Now(); time.Since(begin) < d; {
			t := time.Now()
			if err := connect(to); err != nil {
				return err
			}
			took = append(took, time.Since(t).Seconds())
		}
		return nil
	})
	return 1 / quantile(took, 0.5), err
}

// connect makes one connection and waits until the other end has closed it.
func connect(to *net.TCPAddr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	sa := &unix.SockaddrInet4{Port: to.Port}
	copy(sa.Addr[:], to.IP.To4())
	if err := unix.Connect(fd, sa); err != nil {
		return err
	}
	_, err = unix.Read(fd, make([]byte, 1))
	return err
}

// acceptAndClose is the other end.
func acceptAndClose(fd int) error {
	for {
		c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		if err != nil {
			return err
		}
		_ = unix.Close(c)
	}
}

func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return v[min(len(v)-1, int(q*float64(len(v))))]
}
