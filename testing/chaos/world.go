package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/minictl/minictl/testing/lab"
)

// known is what was said of a container by the daemon that owns it, and so must be true.
type known struct {
	sure    bool // what follows is true; else a call about it had no clear answer
	exists  bool
	running bool
	nets    map[string]bool // by name
}

// world is one cluster under one plan.
type world struct {
	lab *lab.Lab
	log func(string)
	// patience is how long a healed cluster may take to be whole again.
	patience time.Duration
	hosts    []*lab.Host
	daemons  []*daemon
	before   []lab.Snapshot
	history  *history
	count    counts

	mu         sync.Mutex
	containers map[string]*known
	mustExist  map[string]bool // networks, by name: made for sure, and nobody has tried to remove them
	last       map[int][]box   // by host: as last seen
	off        map[int]bool    // without power
	recovered  bool            // in this episode
	violations []error
}

// counts are what a report says.
type counts struct {
	mu      sync.Mutex
	calls   map[string]int
	refused map[string]int
	settled []time.Duration // how long it took, after each healing, until all was as it should be
}

func (c *counts) settle(took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settled = append(c.settled, took)
}

func (c *counts) add(m *map[string]int, key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if *m == nil {
		*m = map[string]int{}
	}
	(*m)[key]++
}

func (c *counts) merge(o *counts) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for k, n := range o.calls {
		for range n {
			c.add(&c.calls, k)
		}
	}
	for _, took := range o.settled {
		c.settle(took)
	}
	for k, n := range o.refused {
		for range n {
			c.add(&c.refused, k)
		}
	}
}

func (w *world) violate(format string, a ...any) {
	err := fmt.Errorf(format, a...)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.violations = append(w.violations, err)
	w.log("VIOLATION: " + err.Error())
}

// movedBy is how far a host's two addresses are from each other, more than there are hosts.
const movedBy = 40

// newWorld boots hosts and joins them.
func newWorld(ctx context.Context, tb lab.TB, o options, hosts int, log func(string)) (*world, error) {
	w := &world{
		patience: o.patience,
		lab:      lab.New(tb), log: log, history: newHistory(), containers: map[string]*known{}, mustExist: map[string]bool{},
		last: map[int][]box{}, off: map[int]bool{},
	}
	for i := range hosts {
		h := w.lab.Host(fmt.Sprint("host", i+1))
		h.Daemon("--debug")
		h.MustMinictl("load", "-q", "-i", filepath.Join(o.images, "busybox.tar"))
		w.hosts, w.daemons = append(w.hosts, h), append(w.daemons, newDaemon(h, log))
	}
	if err := w.daemons[0].call(ctx, "POST", "/cluster/init", map[string]string{"AdvertiseAddr": "eth0"}, nil); err != nil {
		return nil, err
	}
	for i := 1; i < hosts; i++ {
		if err := w.join(ctx, i, 0); err != nil {
			return nil, err
		}
	}
	if err := w.oneCluster(ctx, w.patience); err != nil {
		return nil, err
	}
	for _, h := range w.hosts {
		w.before = append(w.before, traces(h))
	}
	return w, nil
}

func (w *world) join(ctx context.Context, host, via int) error {
	var t struct{ Token string }
	if err := w.daemons[via].call(ctx, "GET", "/cluster/token", nil, &t); err != nil {
		return fmt.Errorf("token of host%d: %w", via+1, err)
	}
	err := w.daemons[host].call(ctx, "POST", "/cluster/join", map[string]string{"Token": t.Token, "Remote": w.hosts[via].Addr().String()}, nil)
	if err != nil {
		return fmt.Errorf("join host%d through host%d: %w", host+1, via+1, err)
	}
	return nil
}

// episode does all rounds, heals, looks, and changes the members.
func (w *world) episode(ctx context.Context, e episode) {
	w.recovered = false
	for _, r := range e.rounds {
		w.log(r.String())
		w.round(ctx, r)
		w.noTwins(ctx)
		if ctx.Err() != nil {
			return
		}
	}
	w.settle(ctx)
	if e.membership != nil && len(w.violations) == 0 {
		w.log(e.membership.String())
		w.member(ctx, *e.membership)
		w.settle(ctx)
	}
}

// round does steps side by side. Faults are this goroutine's, since the lab is.
func (w *world) round(ctx context.Context, r round) {
	var wg sync.WaitGroup
	for i, s := range r.users {
		wg.Go(func() {
			pause(ctx, s.wait)
			w.user(ctx, i, s)
		})
	}
	if r.fault != nil {
		pause(ctx, r.fault.wait)
		w.fault(ctx, *r.fault)
	}
	wg.Wait()
	pause(ctx, r.linger)
}

func pause(ctx context.Context, ms int) {
	select {
	case <-time.After(time.Duration(ms) * time.Millisecond):
	case <-ctx.Done():
	}
}

// about gives what is known of a container, to be changed under the lock.
func (w *world) about(name string) *known {
	k := w.containers[name]
	if k == nil {
		k = &known{sure: true, nets: map[string]bool{}}
		w.containers[name] = k
	}
	return k
}

// outcome books what a daemon said. It is clear if there was an answer and it was not "I do not know".
func (w *world) outcome(s step, err error) (clear bool) {
	w.count.add(&w.count.calls, s.op)
	if err == nil {
		return true
	}
	code := codeOf(err)
	if code == 499 {
		w.violate("%s: the daemon says that whoever waits has gone: %w", s, err)
	}
	if code != 0 {
		w.count.add(&w.count.refused, fmt.Sprintf("%s %d %s", s.op, code, shape(err.Error())))
	} else {
		w.count.add(&w.count.refused, s.op+" without an answer")
	}
	w.log(fmt.Sprintf("  %s: %v", s, err))
	if errors.Is(err, context.DeadlineExceeded) && !w.dark(s.host) {
		w.violate("%s: no answer in %v", s, callTime)
	}
	if code == http.StatusInternalServerError {
		w.violate("%s: %v", s, err)
	}
	return code != 0 && code < 500
}

// shape takes what differs from case to case out of a sentence.
func shape(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return '#'
		}
		return r
	}, s[:min(len(s), 160)])
}

func (w *world) dark(host int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.off[host] || w.hosts[host].Running() == nil
}

// unseen forgets how a container was seen last: it is about to change, and its host may not live to tell. A daemon that is
// down changes nothing.
func (w *world) unseen(host int, name string) {
	if w.dark(host) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last[host] = slices.DeleteFunc(slices.Clone(w.last[host]), func(b box) bool { return strings.TrimPrefix(b.Name, "/") == name })
}

func (w *world) user(ctx context.Context, client int, s step) {
	if s.op != opNetCreate && s.op != opNetRemove {
		w.unseen(s.host, containerName(s.host, s.slot))
	}
	switch s.op {
	case opNetCreate, opNetRemove:
		w.userNetwork(ctx, client, s)
		return
	case opRun:
		w.run(ctx, s)
		return
	}
	name := containerName(s.host, s.slot)
	w.mu.Lock()
	k := w.about(name)
	was := known{k.sure, k.exists, k.running, maps.Clone(k.nets)}
	k.sure = false
	w.mu.Unlock()
	method, path, body := "POST", "/containers/"+name+"/"+s.op, any(nil)
	switch s.op {
	case opRemove:
		method, path = "DELETE", "/containers/"+name+"?force=1"
	case opStop, opRestart:
		path += "?t=0"
	case opConnect, opDisconnect:
		path = "/networks/" + netName(s.net) + "/" + s.op
		body = map[string]any{"Container": name, "Force": true}
	}
	err := w.daemons[s.host].call(ctx, method, path, body, nil)
	clear := w.outcome(s, err)
	w.mu.Lock()
	defer w.mu.Unlock()
	*k = was.after(s, err, clear)
}

// after is what is known of a container when a user's step has been answered, if the answer is clear.
func (k known) after(s step, err error, clear bool) known {
	switch {
	case !clear:
		k.sure = false
	case s.op == opRemove:
		return known{sure: k.sure || err == nil || codeOf(err) == http.StatusNotFound, nets: map[string]bool{}}
	case err != nil && s.op == opRestart && k.running: // as with docker, it may have been ended, and not been started again
		k.sure = false
	case err != nil: // refused: as it was
	case s.op == opStop:
		k.running = false
	case s.op == opStart, s.op == opRestart:
		k.running = true
	case s.op == opConnect:
		k.nets[netName(s.net)] = true
	case s.op == opDisconnect:
		delete(k.nets, netName(s.net))
	}
	return k
}

// hasPolicy tells whether a slot's containers are started again by themselves.
func hasPolicy(slot int) bool { return slot == 0 }

// run is rm, create and start.
func (w *world) run(ctx context.Context, s step) {
	name := containerName(s.host, s.slot)
	w.mu.Lock()
	k := w.about(name)
	was := known{k.sure, k.exists, k.running, maps.Clone(k.nets)}
	k.sure = false
	w.mu.Unlock()
	policy := ""
	if hasPolicy(s.slot) {
		policy = "unless-stopped"
	}
	endpoint := map[string]any{}
	if s.asks() {
		endpoint["IPAMConfig"] = map[string]string{"IPv4Address": s.address()}
	}
	body := map[string]any{
		"Image": "busybox", "Cmd": []string{"sleep", "3600"},
		"HostConfig":       map[string]any{"NetworkMode": netName(s.net), "RestartPolicy": map[string]any{"Name": policy}},
		"NetworkingConfig": map[string]any{"EndpointsConfig": map[string]any{netName(s.net): endpoint}},
	}
	d := w.daemons[s.host]
	err := d.call(ctx, "DELETE", "/containers/"+name+"?force=1", nil, nil)
	var clear bool
	if err != nil && codeOf(err) != http.StatusNotFound {
		clear = w.outcome(step{op: opRemove, host: s.host, slot: s.slot}, err)
	} else {
		was = known{sure: true, nets: map[string]bool{}}
		err = d.call(ctx, "POST", "/containers/create?name="+url.QueryEscape(name), body, nil)
		clear = w.outcome(s, err)
	}
	created := err == nil
	if created {
		err = d.call(ctx, "POST", "/containers/"+name+"/start", nil, nil)
		clear = w.outcome(step{op: opStart, host: s.host, slot: s.slot}, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case !clear:
	case err == nil:
		*k = known{sure: true, exists: true, running: true, nets: map[string]bool{netName(s.net): true}}
	case created:
		*k = known{sure: true, exists: true, nets: map[string]bool{netName(s.net): true}}
	default:
		*k = was
	}
}

func (w *world) userNetwork(ctx context.Context, client int, s step) {
	name := netName(s.net)
	w.mu.Lock()
	had := w.mustExist[name]
	if s.op == opNetRemove {
		delete(w.mustExist, name)
	}
	w.mu.Unlock()
	done := w.history.begin(client, name, s.op)
	var err error
	if s.op == opNetCreate {
		body := map[string]any{"Name": name, "Driver": "overlay", "CheckDuplicate": true}
		if s.net == smallNetwork {
			body["IPAM"] = map[string]any{"Config": []map[string]string{{"Subnet": smallSubnet}}}
		}
		err = w.daemons[s.host].call(ctx, "POST", "/networks/create", body, nil)
	} else {
		err = w.daemons[s.host].call(ctx, "DELETE", "/networks/"+name, nil, nil)
	}
	clear := w.outcome(s, err)
	code := codeOf(err)
	a := netAnswer{ok: err == nil, unknown: !clear}
	a.inUse = s.op == opNetRemove && (code == http.StatusForbidden || code == http.StatusConflict)
	done(a)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case s.op == opNetCreate && err == nil:
		w.mustExist[name] = true
	case s.op == opNetRemove && a.inUse && had:
		w.mustExist[name] = true
	}
}

// fault does one thing to the underlay, a daemon or a host.
func (w *world) fault(ctx context.Context, s step) {
	w.count.add(&w.count.calls, s.op)
	h := w.hosts[s.host]
	switch s.op {
	case opPartition:
		for i, a := range w.hosts {
			for j, b := range w.hosts[:i] {
				if s.arg>>i&1 != s.arg>>j&1 {
					w.lab.Partition(a, b)
				}
			}
		}
	case opIsolate:
		w.lab.Isolate(h)
	case opMute:
		w.lab.Mute(h, w.hosts[s.arg])
	case opLoss:
		w.lab.Loss(h, 33)
	case opDropUDP:
		w.lab.Drop(h, "udp", 7946)
	case opDropTCP:
		w.lab.Drop(h, "tcp", 7946)
	case opHeal:
		w.lab.HealAll()
	case opKill:
		w.kill(s.host)
	case opDaemon:
		if h.Running() != nil {
			h.StopDaemon()
			h.RestartDaemon()
		}
	case opPowerCut:
		w.cut(s.host)
	case opLostPower:
		for i := range w.hosts {
			w.cut(i)
		}
	case opBoot:
		w.boot(s.host)
	case opRecover:
		err := w.daemons[s.host].call(ctx, "POST", "/cluster/recover", map[string]bool{}, nil)
		w.outcome(s, err)
		if err == nil || codeOf(err) == 0 || codeOf(err) >= 500 {
			w.recovered = true
		}
	}
}

func (w *world) kill(host int) {
	if w.hosts[host].Running() != nil {
		w.hosts[host].KillDaemon()
	}
}

// cut takes a host's power: what ran there does not any more.
func (w *world) cut(host int) {
	w.mu.Lock()
	w.off[host] = true
	delete(w.last, host)
	w.mu.Unlock()
	w.hosts[host].Halt()
}

// boot starts what of a host does not run.
func (w *world) boot(host int) {
	w.mu.Lock()
	off := w.off[host]
	w.mu.Unlock()
	h := w.hosts[host]
	if off {
		h.Boot()
		w.mu.Lock()
		w.off[host] = false
		for slot := range slotsPerHost {
			k := w.about(containerName(host, slot))
			k.running = k.running && hasPolicy(slot)
		}
		w.mu.Unlock()
	}
	if h.Running() == nil || off {
		h.RestartDaemon()
	}
}

// member changes what a host is in the cluster.
func (w *world) member(ctx context.Context, s step) {
	w.count.add(&w.count.calls, s.op)
	var err error
	switch s.op {
	case opMove, opMoveOff:
		err = w.move(ctx, s)
	case opSplit:
		err = w.split(ctx, s)
	default:
		err = w.replace(ctx, s)
	}
	if err != nil {
		w.violate("%s: %w", s, err)
	}
}

// move gives a host another address, and the old one the next time.
func (w *world) move(ctx context.Context, s step) error {
	h := w.hosts[s.host]
	err := w.eventually(ctx, w.patience, func() error { // the daemon notes its interface a moment after it has its address
		b, err := os.ReadFile(filepath.Join(h.Dir(), "data", "cluster", "cluster.json"))
		if err == nil && !strings.Contains(string(b), `"eth0"`) {
			err = errors.New("the interface is not noted")
		}
		return err
	})
	if err != nil {
		return err
	}
	if s.op == opMoveOff {
		h.StopDaemon()
	}
	a := h.Addr().As4()
	if a[3] < movedBy {
		a[3] += movedBy
	} else {
		a[3] -= movedBy
	}
	h.Renumber(netip.AddrFrom4(a))
	if s.op == opMoveOff {
		h.RestartDaemon()
	}
	// Before anybody else moves: those who all move at once have lost each other (cluster find).
	return w.eventually(ctx, w.patience, func() error { return w.located(ctx, h) })
}

// split has two hosts take over without each other, and one of them join the other again.
func (w *world) split(ctx context.Context, s step) error {
	for _, h := range w.hosts {
		w.lab.Isolate(h)
	}
	for _, i := range []int{s.host, s.arg} {
		err := w.eventually(ctx, w.patience, func() error {
			return w.daemons[i].call(ctx, "POST", "/cluster/recover", map[string]bool{}, nil)
		})
		if err != nil {
			return err
		}
	}
	w.lab.HealAll()
	return w.eventually(ctx, w.patience, func() error { // they must have met
		return w.daemons[s.host].call(ctx, "POST", "/cluster/rejoin", map[string]string{"Remote": w.hosts[s.arg].Name()}, nil)
	})
}

// replace takes a host out of the cluster and joins it again.
func (w *world) replace(ctx context.Context, s step) error {
	d, via := w.daemons[s.host], w.daemons[s.arg]
	for slot := range slotsPerHost { // they would lose their networks
		_ = d.call(ctx, "DELETE", "/containers/"+containerName(s.host, slot)+"?force=1", nil, nil)
		w.mu.Lock()
		*w.about(containerName(s.host, slot)) = known{sure: true, nets: map[string]bool{}}
		w.mu.Unlock()
	}
	var err error
	if s.op == opLeave {
		err = d.call(ctx, "POST", "/cluster/leave", nil, nil)
	} else {
		w.cut(s.host)
		err = w.eventually(ctx, w.patience, func() error { // it must be known to be down
			return via.call(ctx, "DELETE", fmt.Sprintf("/nodes/host%d?force=1", s.host+1), nil, nil)
		})
		w.boot(s.host)
		if err == nil {
			err = d.call(ctx, "POST", "/cluster/leave?force=1", nil, nil)
		}
	}
	if err != nil {
		return err
	}
	return w.join(ctx, s.host, s.arg)
}

// eventually asks until it is so.
func (w *world) eventually(ctx context.Context, within time.Duration, ok func() error) error {
	began, said := time.Now(), 5*time.Second
	deadline := began.Add(within)
	for {
		err := ok()
		if waited := time.Since(began); err != nil && waited > said {
			w.log(fmt.Sprintf("  not yet: %v", err))
			said = 2 * waited
		}
		if err == nil || time.Now().After(deadline) || ctx.Err() != nil {
			return err
		}
		pause(ctx, 200)
	}
}

// settle ends every fault and wants the world whole.
func (w *world) settle(ctx context.Context) {
	w.lab.HealAll()
	for i := range w.hosts {
		w.boot(i)
	}
	began := time.Now()
	w.log("healed")
	if err := w.oneCluster(ctx, w.patience); err != nil {
		w.violate("after healing: %w", err)
		return
	}
	if err := w.dropHomeless(ctx); err != nil {
		w.violate("after healing: %w", err)
	}
	w.kept(ctx)
	if err := w.eventually(ctx, w.patience, func() error { return w.whole(ctx) }); err != nil {
		w.violate("after healing: %w", err)
	}
	w.noTwins(ctx)
	w.log("  names, rows and books are right")
	w.names(ctx)
	took := time.Since(began)
	w.count.settle(took)
	w.log(fmt.Sprintf("whole after %v", took.Round(time.Millisecond)))
}

// located wants every host to know where one is.
func (w *world) located(ctx context.Context, h *lab.Host) error {
	for i, d := range w.daemons {
		s, err := d.status(ctx)
		if err != nil {
			return err
		}
		for _, n := range s.Nodes {
			if at, _, _ := strings.Cut(n.Addr, ":"); n.Name == h.Name() && at != h.Addr().String() {
				return fmt.Errorf("host%d: %s is at %s, should be at %s", i+1, n.Name, n.Addr, h.Addr())
			}
		}
	}
	return nil
}

// finish removes everything and wants no trace of it.
func (w *world) finish(ctx context.Context) {
	for _, h := range w.hosts {
		now := h.Addr().As4()
		if now[3] < movedBy {
			continue
		}
		now[3] -= movedBy // the kernel's lists are to be as they were
		h.Renumber(netip.AddrFrom4(now))
		err := w.eventually(ctx, w.patience, func() error { return w.located(ctx, h) })
		if err == nil {
			err = w.oneCluster(ctx, w.patience)
		}
		if err != nil {
			w.violate("clean up: %w", err)
		}
	}
	w.log("all removed")
	for i, d := range w.daemons {
		for slot := range slotsPerHost {
			err := d.call(ctx, "DELETE", "/containers/"+containerName(i, slot)+"?force=1", nil, nil)
			if err != nil && codeOf(err) != http.StatusNotFound {
				w.violate("clean up: rm %s: %w", containerName(i, slot), err)
			}
		}
	}
	for n := range networks {
		err := w.eventually(ctx, w.patience, func() error {
			err := w.daemons[0].call(ctx, "DELETE", "/networks/"+netName(n), nil, nil)
			if codeOf(err) == http.StatusNotFound {
				return nil
			}
			return err
		})
		if err != nil {
			w.violate("clean up: network rm %s: %w", netName(n), err)
		}
	}
	for i, h := range w.hosts {
		err := w.eventually(ctx, w.patience, func() error {
			if diff := lab.Diff(w.before[i], traces(h)); diff != "" {
				return errors.New(diff)
			}
			return nil
		})
		if err != nil {
			w.violate("%s: left behind:\n%w", h.Name(), err)
		}
	}
}

// traces is what a host's kernel lists, without its cable, which is another one after a power cut, and without what other
// programs had mounted on this machine when it booted.
func traces(h *lab.Host) lab.Snapshot {
	s := h.Snapshot()
	for i := range s {
		s[i].Lines = slices.DeleteFunc(s[i].Lines, func(l string) bool {
			return s[i].Title == "links" && strings.Contains(l, " eth0@") || s[i].Title == "mounts" && strings.HasPrefix(l, "/tmp/") && !strings.Contains(l, h.Dir())
		})
	}
	return s
}

// sortedNames of what a map knows.
func sortedNames[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
