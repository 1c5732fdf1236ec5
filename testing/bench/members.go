package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/cluster"
	"github.com/minictl/minictl/cluster/store"
)

// What the project wants of the parts that are measured without daemons.
const (
	targetPublishMs = 20
	targetAddresses = 200
	targetRecordsMB = 64
	targetIdle      = 2.0 // per cent of a processor
)

const (
	memberCount    = 5
	mostMembers    = 50
	publishes      = 200
	addressesTaken = 400
	manyRecords    = 10_000
	idleMembers    = 10 * time.Second
	joinPatience   = 5 * time.Second // of each
	benchNetwork   = "b3c4e1f0b3c4e1f0b3c4e1f0b3c4e1f0b3c4e1f0b3c4e1f0b3c4e1f0b3c4e1f0"
)

// members measures the cluster's own work with members that live in this process and talk by TLS over the loopback
// interface: what is left out is containers, not the cluster.
func (b *bench) members() error {
	m := &inProcess{bench: b}
	return errors.Join(
		m.with(memberCount, m.publish, func() error { return m.addresses(1) }, func() error { return m.addresses(memberCount) }, m.records),
		m.with(mostMembers, m.records))
}

// with takes steps with n members of their own.
func (m *inProcess) with(n int, steps ...func() error) error {
	defer m.close()
	if err := m.open(n); err != nil {
		return err
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// inProcess are the members.
type inProcess struct {
	*bench
	dir string
	all []*cluster.Cluster
}

func (m *inProcess) close() {
	for _, c := range m.all {
		if err := c.Close(); err != nil {
			m.Errorf("close a member: %w", err)
		}
	}
	m.all = nil
	os.RemoveAll(m.dir)
}

// open founds a cluster and lets the others join it, each at an address of its own.
func (m *inProcess) open(n int) (err error) {
	if m.dir, err = os.MkdirTemp("", "minictl-bench-"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), peerPatience+time.Duration(n)*joinPatience)
	defer cancel()
	token := ""
	for i := range n {
		c, err := cluster.Open(ctx, cluster.Config{Dir: filepath.Join(m.dir, fmt.Sprint(i)), Name: fmt.Sprintf("bench%d", i), Version: "bench"})
		if err != nil {
			return err
		}
		m.all = append(m.all, c)
		// The process's number keeps two benches on one machine apart.
		pid := os.Getpid()
		o := cluster.InitOptions{MTU: 1500, Advertise: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, byte(100 + pid>>16), byte(pid >> 8), byte(pid)}), uint16(20000+i))}
		if i == 0 {
			if err := c.Init(ctx, o); err != nil {
				return err
			}
			if token, _, err = c.Token(ctx, false); err != nil {
				return err
			}
			continue
		}
		if err := c.Join(ctx, cluster.JoinOptions{Token: token, Remote: m.all[0].Self().Addr.String(), InitOptions: o}); err != nil {
			return err
		}
	}
	return await(ctx, func() error {
		for _, c := range m.all {
			for _, x := range c.Members() {
				if !x.Alive {
					return fmt.Errorf("%s does not see %s", c.Self().Name, x.Name)
				}
			}
			if len(c.Members()) != n {
				return errors.New("not all are known")
			}
		}
		return nil
	})
}

func benchRecord(owner, i int) cluster.Record {
	name := fmt.Sprintf("container-%d-%d", owner, i)
	return cluster.Record{
		ID: fmt.Sprintf("%064x", owner<<20+i), Network: benchNetwork, Container: fmt.Sprintf("%064x", owner<<20+i), Name: name,
		Names: []string{name, fmt.Sprintf("%012x", owner<<20+i)}, Address: netip.AddrFrom4([4]byte{10, byte(owner), byte(i >> 8), byte(i)}), PrefixLen: 8,
		MAC: fmt.Sprintf("02:42:0a:%02x:%02x:%02x", owner, i>>8&255, i&255),
	}
}

// publish times what run waits for: that every other host has taken a new endpoint's record and has acknowledged it.
func (m *inProcess) publish() error {
	var took sample
	for i := range publishes {
		owner := i % len(m.all)
		began := time.Now()
		missing, err := m.all[owner].Publish(context.Background(), []cluster.Record{benchRecord(owner, i)}, nil)
		took = append(took, ms(time.Since(began)))
		if err != nil || len(missing) > 0 {
			return fmt.Errorf("publish: %v, %w", missing, err)
		}
	}
	o := took.sorted()
	what := fmt.Sprintf("what `run` waits for, a record acknowledged by all of %d members (in one process)", len(m.all))
	m.table.add(figure{what: what, values: took, format: "%.1f ms"})
	m.table.add(figure{what: "… the 99th of 100", values: sample{o[len(o)*99/100]}, format: "%.1f ms", target: targetPublishMs})
	return nil
}

// addresses lets members take addresses at the same time, the lowest free one each time, as their engines do.
func (m *inProcess) addresses(hosts int) error {
	prefix := fmt.Sprintf("address/by%d/", hosts)
	errs := make([]error, hosts)
	var all sync.WaitGroup
	began := time.Now()
	for i := range hosts {
		all.Go(func() {
			for range addressesTaken / hosts {
				if errs[i] = takeLowest(m.all[i].Store(), prefix); errs[i] != nil {
					return
				}
			}
		})
	}
	all.Wait()
	took := time.Since(began).Seconds()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	pairs, _, err := m.all[0].Store().Range(context.Background(), prefix, true)
	if want := addressesTaken / hosts * hosts; err != nil || len(pairs) != want {
		return fmt.Errorf("%d addresses of %d: %w", len(pairs), want, err)
	}
	m.table.add(figure{what: fmt.Sprintf("addresses per second, taken in order by %d of %d members (in one process)", hosts, len(m.all)),
		values: sample{addressesTaken / took}, format: "%.0f", target: targetAddresses, more: true})
	return nil
}

// takeLowest claims the first key that does not exist. Whoever loses the race takes the next one.
func takeLowest(s store.Store, prefix string) error {
	value, err := json.Marshal(map[string]string{"node": strings.Repeat("n", 25), "container": strings.Repeat("c", 64)})
	if err != nil {
		return err
	}
	pairs, _, err := s.Range(context.Background(), prefix, true)
	if err != nil {
		return err
	}
	for i := len(pairs); ; i++ { // nothing is freed here, so the count is the lowest
		key := fmt.Sprintf("%s%05d", prefix, i)
		_, err = s.Txn(context.Background(), store.Txn{If: []store.Cond{{Key: key}}, Then: []store.Op{{Key: key, Value: value}}})
		if !errdefs.IsConflict(err) {
			return err
		}
	}
}

// records weighs ten thousand endpoints, which every member holds, and what they cost while nothing happens.
func (m *inProcess) records() error {
	before := heap()
	for owner, c := range m.all {
		var list []cluster.Record
		for i := range manyRecords / len(m.all) {
			list = append(list, benchRecord(owner, i))
		}
		// A member that is too busy to acknowledge in time has them a moment later.
		if _, err := c.Publish(context.Background(), list, nil); err != nil {
			return fmt.Errorf("publish %d records: %w", len(list), err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), peerPatience)
	defer cancel()
	held := len(m.all) * (manyRecords / len(m.all))
	if err := await(ctx, func() error {
		for _, c := range m.all {
			if n := len(c.Records(benchNetwork)); n < held {
				return fmt.Errorf("%s has %d records of %d", c.Self().Name, n, held)
			}
		}
		return nil
	}); err != nil {
		return err
	}
	mb := float64(heap()-before) / 1e6 / float64(len(m.all))
	m.table.add(figure{what: fmt.Sprintf("memory of %d endpoint records in each of %d members (in one process)", manyRecords, len(m.all)), values: sample{mb}, format: "%.1f MB", target: targetRecordsMB})
	used, err := ownCPU()
	if err != nil {
		return err
	}
	time.Sleep(idleMembers)
	now, err := ownCPU()
	if err != nil {
		return err
	}
	idle := 100 * (now - used).Seconds() / idleMembers.Seconds() / float64(len(m.all))
	m.table.add(figure{what: "… processor of such a member while nothing happens", values: sample{idle}, format: "%.2f %%", target: targetIdle})
	return nil
}

// heap is what is in use after all that is not has been given back.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// ownCPU is the processor time of this process (getrusage(2)).
func ownCPU() (time.Duration, error) {
	var u syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}
