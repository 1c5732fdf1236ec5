package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// resolver is where a container asks.
const resolver = "127.0.0.11:53"

// answers wants a container's resolver to know every name of the networks it is on, and no other. Of a name that is on
// several of them, the address on any will do.
func (w *world) answers(host int, b box, lists [][]box) error {
	conn, err := dialIn(w.hosts[host].Path(fmt.Sprintf("/proc/%d/ns/net", b.State.Pid)), resolver)
	if err != nil {
		return fmt.Errorf("reach its resolver: %w", err)
	}
	defer conn.Close()
	c := &dns.Conn{Conn: conn}
	want := map[string]map[string]bool{}
	for _, ep := range b.NetworkSettings.Networks {
		for _, p := range placesOf(ep.NetworkID, lists) {
			if want[p.name] == nil {
				want[p.name] = map[string]bool{}
			}
			want[p.name][p.addr.String()] = true
		}
	}
	for h := range w.hosts {
		for slot := range slotsPerHost {
			name := containerName(h, slot)
			began := time.Now()
			got, err := ask(c, name)
			if took := time.Since(began); took > time.Second {
				w.log(fmt.Sprintf("  host%d: %s waited %v for the answer about %s: %v, %v", host+1, b.Name, took.Round(time.Millisecond), name, sortedNames(got), err))
			}
			if err != nil {
				return fmt.Errorf("ask for %s: %w", name, err)
			}
			for a := range got {
				if !want[name][a] {
					return fmt.Errorf("%s is at %s, should be at %v", name, a, sortedNames(want[name]))
				}
			}
			if len(got) == 0 && len(want[name]) > 0 {
				return fmt.Errorf("%s is not known, should be at %v", name, sortedNames(want[name]))
			}
		}
	}
	return nil
}

func ask(c *dns.Conn, name string) (map[string]bool, error) {
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), dns.TypeA)
	if err := c.SetDeadline(time.Now().Add(callTime / 4)); err != nil {
		return nil, err
	}
	if err := c.WriteMsg(q); err != nil {
		return nil, err
	}
	r, err := c.ReadMsg()
	if err != nil {
		return nil, err
	}
	if r.Id != q.Id {
		return nil, errors.New("an answer to another question")
	}
	out := map[string]bool{}
	for _, rr := range r.Answer {
		if a, ok := rr.(*dns.A); ok {
			out[a.A.String()] = true
		}
	}
	return out, nil
}

// names sends a packet from a container of each host to one of each other.
func (w *world) names(ctx context.Context) {
	var lists [][]box
	for i := range w.hosts {
		lists = append(lists, w.last[i])
	}
	all, err := w.agreed(ctx)
	if err != nil {
		return // said already
	}
	for _, n := range all {
		places := placesOf(n.ID, lists)
		for _, from := range places {
			for _, to := range places {
				if from.host != to.host {
					w.reaches(ctx, lists[from.host], from, to)
					break
				}
			}
		}
	}
}

// reaches pings, out of a container's network namespace.
func (w *world) reaches(ctx context.Context, list []box, from, to place) {
	for _, b := range list {
		if b.Name != "/"+from.name {
			continue
		}
		err := w.eventually(ctx, callTime/2, func() error {
			out, errs, code := w.hosts[from.host].Run(ctx, "nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", b.State.Pid), "busybox", "ping", "-c", "1", "-W", "2", to.addr.String())
			if code != 0 {
				w.log(fmt.Sprintf("  no answer yet: %s to %s at %s", from.name, to.name, to.addr))
				return fmt.Errorf("%s does not reach %s at %s: %s%s", from.name, to.name, to.addr, out, errs)
			}
			return nil
		})
		if err != nil {
			w.violate("after healing: %w", err)
		}
	}
}

// dialIn opens a UDP socket in a network namespace. The thread that was there is thrown away.
func dialIn(ns, addr string) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		var f *os.File
		if f, err = os.Open(ns); err != nil {
			return
		}
		defer f.Close()
		if err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return
		}
		conn, err = net.Dial("udp", addr)
	}()
	<-done
	return conn, err
}
