package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"net"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

// traffic makes this test program, bound into a container, one end of traffic that counts what it loses.
const traffic = "traffic"

// trafficMain is the program inside: "serve PORT" is the other end of the rest; "stream ADDRESS" sends and takes numbered
// blocks over one connection; "connect ADDRESS" makes one connection after the other; "ask [-again] NAME=ADDRESS…" asks
// the resolver a thousand questions a second. They go on until SIGTERM, then print what they found, and fail if anything is
// missing. No time decides: what comes late has come. "who NAME" answers datagrams with its name, "ping ADDRESS FILE" sends
// them and writes down who has answered which.
func trafficMain(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if len(args) < 2 || args[0] == "ping" && len(args) < 3 {
		return fmt.Errorf("traffic: %q", args)
	}
	fmt.Fprintln(os.Stdout, "begun")
	switch args[0] {
	case "serve":
		return trafficServe(ctx, args[1])
	case "stream":
		return trafficStream(ctx, args[1])
	case "connect":
		return trafficConnect(ctx, args[1])
	case "ask":
		return trafficAsk(ctx, args[1:])
	case "who":
		return trafficWho(args[1])
	case "ping":
		return trafficPing(ctx, args[1], args[2])
	}
	return fmt.Errorf("traffic: %q", args)
}

// never is when something that has not come counts as lost.
const never = 2 * time.Minute

// blockSize is a block's length in bytes: its number, then noise made of that.
const blockSize = 1024

// last is the number of the block that tells what has been sent and taken.
const last = math.MaxUint64

// tally is one direction's count and sum.
type tally struct {
	blocks uint64
	sum    uint32
}

func (t *tally) add(b []byte) {
	t.blocks++
	t.sum = crc32.Update(t.sum, crc32.IEEETable, b)
}

// sendBlocks writes blocks, some hundred a second, until ctx ends.
func sendBlocks(ctx context.Context, w io.Writer) (t tally, err error) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	b := make([]byte, blockSize)
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return t, nil
		}
		for i := 0; i < blockSize; i += 8 {
			binary.BigEndian.PutUint64(b[i:], t.blocks*uint64(i/8+1))
		}
		binary.BigEndian.PutUint64(b, t.blocks)
		if _, err := w.Write(b); err != nil {
			return t, fmt.Errorf("block %d: %w", t.blocks, err)
		}
		t.add(b)
	}
}

// takeBlocks reads blocks to the end, which is a last one if the other side says what it has.
func takeBlocks(r io.Reader) (t tally, said []byte, err error) {
	b := make([]byte, blockSize)
	for {
		if _, err := io.ReadFull(r, b); errors.Is(err, io.EOF) {
			return t, nil, nil
		} else if err != nil {
			return t, nil, fmt.Errorf("after block %d: %w", t.blocks, err)
		}
		switch n := binary.BigEndian.Uint64(b); n {
		case last:
			return t, b[8:], nil
		case t.blocks:
			t.add(b)
		default:
			return t, nil, fmt.Errorf("block %d came where %d was due", n, t.blocks)
		}
	}
}

// trafficServe answers streams, which begin with an S, and echoes all else.
func trafficServe(ctx context.Context, port string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", ":"+port)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	for {
		conn, err := l.Accept()
		if err != nil {
			return nil
		}
		go func() {
			defer conn.Close()
			first := make([]byte, 1)
			if _, err := io.ReadFull(conn, first); err != nil {
				return
			}
			if first[0] != 'S' {
				_, _ = conn.Write(first)
				_, _ = io.Copy(conn, conn)
				return
			}
			if err := serveStream(conn); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}()
	}
}

func serveStream(conn net.Conn) error {
	ctx, stop := context.WithCancel(context.Background())
	sent := make(chan tally, 1)
	go func() {
		t, _ := sendBlocks(ctx, conn) // the client sees what is wrong
		sent <- t
	}()
	taken, _, err := takeBlocks(conn)
	stop()
	out := <-sent
	if err != nil {
		return err
	}
	b := make([]byte, blockSize)
	copy(b, trailer(out, taken))
	_, err = conn.Write(b)
	return err
}

func trailer(sent, taken tally) []byte {
	b := binary.BigEndian.AppendUint64(nil, last)
	for _, t := range []tally{sent, taken} {
		b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(b, t.blocks), t.sum)
	}
	return b
}

func trafficStream(ctx context.Context, addr string) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("S")); err != nil {
		return err
	}
	var taken tally
	var said []byte
	var tookErr error
	done := make(chan struct{})
	go func() {
		defer close(done)
		taken, said, tookErr = takeBlocks(conn)
	}()
	sent, err := sendBlocks(ctx, conn)
	if err == nil {
		err = conn.(*net.TCPConn).CloseWrite()
	}
	if err != nil {
		return err
	}
	<-done
	if tookErr != nil {
		return tookErr
	}
	if want := trailer(taken, sent)[8:]; said == nil || string(said[:len(want)]) != string(want) {
		return fmt.Errorf("the other side says %x, this one %x", said, want)
	}
	fmt.Fprintf(os.Stdout, "sent %d blocks, took %d\n", sent.blocks, taken.blocks)
	return nil
}

// attempts are what became of many of one kind.
type attempts struct {
	mu      sync.Mutex
	made    int
	failed  []string
	again   int
	longest time.Duration
}

func (a *attempts) end(began time.Time, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.longest = max(a.longest, time.Since(began))
	if err != nil && len(a.failed) < 20 {
		a.failed = append(a.failed, err.Error())
	}
}

func (a *attempts) say() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	fmt.Fprintf(os.Stdout, "made %d, sent again %d, the longest took %v\n", a.made, a.again, a.longest.Round(time.Millisecond))
	if len(a.failed) > 0 {
		return fmt.Errorf("failed: %s", strings.Join(a.failed, "; "))
	}
	return nil
}

func trafficConnect(ctx context.Context, addr string) error {
	var a attempts
	var wg sync.WaitGroup
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			wg.Wait()
			return a.say()
		}
		a.made++
		wg.Go(func() { began := time.Now(); a.end(began, connectOnce(addr)) })
	}
}

// connectOnce makes one connection and uses it.
func connectOnce(addr string) error {
	conn, err := net.DialTimeout("tcp", addr, never)
	if err != nil {
		return err
	}
	return echoOnce(conn)
}

// echoOnce has four bytes echoed by trafficServe, and closes the connection.
func echoOnce(conn net.Conn) error {
	defer conn.Close()
	b := []byte("ping")
	_, err := conn.Write(b)
	if err == nil {
		_ = conn.SetReadDeadline(time.Now().Add(never))
		_, err = io.ReadFull(conn, b)
	}
	return err
}

// The questions: how many a second, over how many sockets, and how many wait for an answer at most: a resolver asks again
// after five seconds, so more than five seconds' worth never wait.
const (
	askRate    = 1000
	askSockets = 50
	askWaiting = 5000
)

// askAgain is when musl's resolver asks again.
const askAgain = 2500 * time.Millisecond

// asker is one socket with its open questions.
type asker struct {
	*attempts
	conn  net.Conn
	slots chan struct{}

	mu   sync.Mutex
	next uint16
	open map[uint16]question
}

type question struct {
	name, want  string
	began, sent time.Time
	packed      []byte
}

func trafficAsk(ctx context.Context, args []string) error {
	again := args[0] == "-again" // as resolvers do; who does not loses what a killed daemon had just read
	if again {
		args = args[1:]
	}
	var a attempts
	slots := make(chan struct{}, askWaiting)
	var askers []*asker
	for range askSockets {
		conn, err := net.Dial("udp", "127.0.0.11:53")
		if err != nil {
			return err
		}
		k := &asker{attempts: &a, conn: conn, slots: slots, open: map[uint16]question{}}
		askers = append(askers, k)
		go k.hear()
	}
	var wg sync.WaitGroup
	wg.Go(func() { askTCP(ctx, &a, args[0], again) })
	tick := time.NewTicker(time.Second / askRate)
	defer tick.Stop()
	beat := time.NewTicker(askAgain / 10)
	defer beat.Stop()
	deadline := time.Time{}
	for i := 0; ; {
		open := 0
		select {
		case <-beat.C:
			for _, k := range askers {
				open += k.look(again)
			}
			if !deadline.IsZero() && (open == 0 || time.Now().After(deadline)) {
				wg.Wait()
				for _, k := range askers {
					k.giveUp()
				}
				return a.say()
			}
		case <-tick.C:
			if ctx.Err() != nil {
				tick.Stop()
				deadline = time.Now().Add(never)
				continue
			}
			select {
			case slots <- struct{}{}:
				i++
				if err := askers[i%askSockets].ask(args[i%len(args)]); err != nil {
					return err
				}
			default:
			}
		}
	}
}

// ask sends one question, NAME=ADDRESS; NAME= must not exist.
func (k *asker) ask(pair string) error {
	name, want, _ := strings.Cut(pair, "=")
	k.mu.Lock()
	k.next++
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), dns.TypeA)
	m.Id = k.next
	b, err := m.Pack()
	k.open[m.Id] = question{name, want, time.Now(), time.Now(), b}
	k.mu.Unlock()
	if err != nil {
		return err
	}
	k.attempts.mu.Lock()
	k.made++
	k.attempts.mu.Unlock()
	_, err = k.conn.Write(b)
	return err
}

// hear takes the answers.
func (k *asker) hear() {
	b := make([]byte, 4096)
	for {
		n, err := k.conn.Read(b)
		if err != nil {
			k.end(time.Now(), err)
			return
		}
		m := new(dns.Msg)
		if err := m.Unpack(b[:n]); err != nil {
			k.end(time.Now(), err)
			continue
		}
		k.mu.Lock()
		q, ok := k.open[m.Id]
		delete(k.open, m.Id)
		k.mu.Unlock()
		if ok {
			k.end(q.began, answers(m, q.name, q.want))
			<-k.slots
		}
	}
}

// answers checks an answer.
func answers(m *dns.Msg, name, want string) error {
	var got []string
	for _, rr := range m.Answer {
		if a, ok := rr.(*dns.A); ok {
			got = append(got, a.A.String())
		}
	}
	if m.Rcode != dns.RcodeSuccess || !slices.Equal(got, []string{want}) {
		return fmt.Errorf("%s is answered with %s %v", name, dns.RcodeToString[m.Rcode], got)
	}
	return nil
}

// look sends again what waits for long, and tells how much waits.
func (k *asker) look(again bool) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, q := range k.open {
		if again && time.Since(q.sent) > askAgain {
			q.sent = time.Now()
			k.open[id] = q
			k.attempts.mu.Lock()
			k.attempts.again++
			k.attempts.mu.Unlock()
			_, _ = k.conn.Write(q.packed)
		}
	}
	return len(k.open)
}

func (k *asker) giveUp() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, q := range k.open {
		k.end(q.began, fmt.Errorf("%s was never answered", q.name))
	}
}

// askTCP asks over connections, one question each.
func askTCP(ctx context.Context, a *attempts, pair string, again bool) {
	name, want, _ := strings.Cut(pair, "=")
	c := dns.Client{Net: "tcp", Timeout: never}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		began := time.Now()
		m := new(dns.Msg)
		m.SetQuestion(dns.Fqdn(name), dns.TypeA)
		r, _, err := c.Exchange(m, "127.0.0.11:53")
		if err != nil && again { // it was being answered when the daemon was killed
			a.mu.Lock()
			a.again++
			a.mu.Unlock()
			r, _, err = c.Exchange(m, "127.0.0.11:53")
		}
		if err != nil {
			err = fmt.Errorf("%s over TCP: %w", name, err)
		} else {
			err = answers(r, name, want)
		}
		a.mu.Lock()
		a.made++
		a.mu.Unlock()
		a.end(began, err)
	}
}

// waiting is how many bytes wait in a container's resolver socket, with the kernel's own cost of each datagram, and how
// many datagrams it has dropped for want of room (proc_pid_net(5), udp).
func waiting(path string) (bytes, dropped int, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, err
	}
	for _, line := range lines(string(b))[1:] {
		f := strings.Fields(line)
		if len(f) < 13 || !strings.HasPrefix(f[1], "0B00007F:") || f[2] != "00000000:0000" {
			continue
		}
		_, rx, _ := strings.Cut(f[4], ":")
		n, err1 := strconv.ParseInt(rx, 16, 64)
		d, err2 := strconv.Atoi(f[12])
		return int(n), d, errors.Join(err1, err2)
	}
	return 0, 0, fmt.Errorf("no socket at 127.0.0.11 in %s", path)
}

// whoPort is where datagrams are answered with a name.
const whoPort = "7007"

func trafficWho(name string) error {
	c, err := net.ListenPacket("udp", ":"+whoPort)
	if err != nil {
		return err
	}
	b := make([]byte, 100)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return err
		}
		if _, err := c.WriteTo(fmt.Appendf(nil, "%s %s", b[:n], name), from); err != nil {
			return err
		}
	}
}

// trafficPing sends a datagram each two milliseconds, and writes a line for each answer: when it was asked, in nanoseconds
// since 1970, and who has answered.
func trafficPing(ctx context.Context, addr, file string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	c, err := net.Dial("udp", net.JoinHostPort(addr, whoPort))
	if err != nil {
		return err
	}
	go func() {
		b := make([]byte, 100)
		for ctx.Err() == nil {
			if n, err := c.Read(b); err == nil { // an error says that nobody listens, for now
				_, _ = f.Write(append(b[:n], '\n'))
			}
		}
	}()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_, _ = c.Write(fmt.Append(nil, time.Now().UnixNano()))
		case <-ctx.Done():
			return nil
		}
	}
}
