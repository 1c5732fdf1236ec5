package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// queries asks for a name at 127.0.0.11 and gives how many answers come in a second, and the 99th percentile of their
// times in ms. One that does not come in two seconds, or holds no address, is an error.
func queries(clients int) func(name string, d time.Duration) ([]float64, error) {
	return func(name string, d time.Duration) ([]float64, error) {
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
		return []float64{float64(len(took)) / time.Since(begin).Seconds(), quantile(took, 0.99)}, errors.Join(errs...)
	}
}

// ask is one client. It does as a C library does, and no more: the question is packed once, calls block, and of an answer
// the header is read. So it is the resolver that is measured.
func ask(name string, until time.Time) (took []float64, err error) {
	q, err := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA).Pack()
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2}); err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 11}, Port: 53}); err != nil {
		return nil, err
	}
	in := make([]byte, dns.MinMsgSize)
	for id := uint16(1); time.Now().Before(until); id++ {
		t := time.Now()
		binary.BigEndian.PutUint16(q, id)
		if _, err := unix.Write(fd, q); err != nil {
			return took, err
		}
		n, err := unix.Read(fd, in)
		for errors.Is(err, unix.EINTR) { // of a read with a time-out, even where signals restart calls (signal(7))
			n, err = unix.Read(fd, in)
		}
		if err != nil {
			return took, err
		}
		// RFC 1035 section 4.1.1: the ID, the response code, the number of answers.
		if n < 12 || binary.BigEndian.Uint16(in) != id || in[3]&0xf != 0 || binary.BigEndian.Uint16(in[6:]) == 0 {
			return took, fmt.Errorf("no answer in %x", in[:n])
		}
		took = append(took, float64(time.Since(t).Nanoseconds())/1e6)
	}
	return took, nil
}
