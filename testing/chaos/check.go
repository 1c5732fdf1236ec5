package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// oneCluster waits until all hosts are in one epoch, follow one leader, see each other up, and as many vote as should.
func (w *world) oneCluster(ctx context.Context, within time.Duration) error {
	return w.eventually(ctx, within, func() error {
		var first status
		for i, d := range w.daemons {
			s, err := d.status(ctx)
			if err != nil {
				return fmt.Errorf("host%d: %w", i+1, err)
			}
			if i == 0 {
				first = s
			}
			if s.Epoch != first.Epoch || s.Leader == "" || s.Leader != first.Leader || len(s.Nodes) != len(w.hosts) {
				return fmt.Errorf("host1 sees %+v, host%d %+v", first, i+1, s)
			}
			voters := 0
			for _, n := range s.Nodes {
				if n.Status != "Ready" {
					return fmt.Errorf("host%d sees %s %s: %v", i+1, n.Name, n.Status, s.Summary)
				}
				if n.Role == "voter" {
					voters++
				}
			}
			if want := 1 + (len(w.hosts)-1)/2*2; voters != want {
				return fmt.Errorf("host%d: %d hosts vote, want %d: %v", i+1, voters, want, s.Summary)
			}
		}
		return nil
	})
}

// noTwins looks at the endpoints of all hosts, now: no two of a network have the same address. Of a host whose daemon is
// down, the containers live on as they were seen last.
func (w *world) noTwins(ctx context.Context) {
	for i, d := range w.daemons {
		if w.dark(i) {
			continue
		}
		list, err := d.boxes(ctx)
		if err != nil {
			w.violate("host%d: list containers: %w", i+1, err)
			continue
		}
		w.mu.Lock()
		w.last[i] = list
		w.mu.Unlock()
	}
	holder := map[string]string{}
	for i := range w.hosts {
		for _, b := range w.last[i] {
			for name, ep := range b.NetworkSettings.Networks {
				if !b.running() || ep.IPAddress == "" {
					continue
				}
				key, who := ep.NetworkID+" "+ep.IPAddress, fmt.Sprintf("host%d's %s", i+1, b.Name)
				if other, taken := holder[key]; taken {
					w.violate("%s and %s have the address %s on %s", other, who, ep.IPAddress, name)
				}
				holder[key] = who
			}
		}
	}
}

// dropHomeless removes the containers whose network somebody has removed behind a partition: status names each, and that
// is what it says to do.
func (w *world) dropHomeless(ctx context.Context) error {
	var all []network
	err := w.eventually(ctx, w.patience, func() (err error) {
		all, err = w.agreed(ctx)
		return err
	})
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, n := range all {
		there[n.ID] = true
	}
	for i, d := range w.daemons {
		list, err := d.boxes(ctx)
		if err != nil {
			return err
		}
		for _, b := range list {
			gone := ""
			for name, ep := range b.NetworkSettings.Networks {
				if ep.NetworkID != "" && !there[ep.NetworkID] {
					gone = name
				}
			}
			if gone == "" {
				continue
			}
			name := strings.TrimPrefix(b.Name, "/")
			if b.running() {
				err := w.eventually(ctx, w.patience, func() error { return w.told(ctx, d, name) })
				if err != nil {
					return fmt.Errorf("host%d: %s is on %s, which is no more: %w", i+1, name, gone, err)
				}
			}
			if err := d.call(ctx, "DELETE", "/containers/"+b.ID+"?force=1", nil, nil); err != nil {
				return err
			}
			w.mu.Lock()
			*w.about(name) = known{sure: true, nets: map[string]bool{}}
			w.mu.Unlock()
		}
	}
	return nil
}

// told wants a sentence about a container in a host's cluster status.
func (w *world) told(ctx context.Context, d *daemon, name string) error {
	s, err := d.status(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(s.Summary, func(line string) bool { return strings.HasPrefix(line, name+" is on a network") }) {
		return fmt.Errorf("cluster status does not say so: %q", s.Summary)
	}
	return nil
}

// agreed gives the networks if all hosts list the same.
func (w *world) agreed(ctx context.Context) ([]network, error) {
	var first []network
	var text string
	for i, d := range w.daemons {
		list, err := d.overlays(ctx)
		if err != nil {
			return nil, err
		}
		var ids []string
		for _, n := range list {
			ids = append(ids, n.Name+" "+n.ID)
		}
		slices.Sort(ids)
		if i == 0 {
			first, text = list, strings.Join(ids, ", ")
		}
		if got := strings.Join(ids, ", "); got != text {
			return nil, fmt.Errorf("host1 has the networks %s, host%d %s", text, i+1, got)
		}
	}
	return first, nil
}

// kept wants every container and network that somebody was told of, and learns about those of which nobody knew.
func (w *world) kept(ctx context.Context) {
	err := w.eventually(ctx, w.patience, func() error {
		var errs []error
		for i, d := range w.daemons {
			list, err := d.boxes(ctx)
			if err != nil {
				return err
			}
			by := map[string]*box{}
			for _, b := range list {
				by[strings.TrimPrefix(b.Name, "/")] = &b
			}
			for slot := range slotsPerHost {
				name := containerName(i, slot)
				w.mu.Lock()
				if err := w.about(name).check(name, by[name]); err != nil {
					errs = append(errs, err)
				}
				w.mu.Unlock()
			}
		}
		return errors.Join(errs...)
	})
	if err != nil {
		w.violate("not as it was said to be: %w", err)
	}
	for i, d := range w.daemons {
		list, err := d.boxes(ctx)
		if err != nil {
			w.violate("host%d: %w", i+1, err)
			return
		}
		w.mu.Lock()
		unsure := map[string]bool{}
		for slot := range slotsPerHost {
			k := w.about(containerName(i, slot))
			unsure[containerName(i, slot)] = !k.sure && hasPolicy(slot)
			*k = known{sure: true, nets: map[string]bool{}}
		}
		for _, b := range list {
			name := strings.TrimPrefix(b.Name, "/")
			k := w.about(name)
			k.exists, k.running = true, b.running()
			k.sure = k.running || !unsure[name] // its policy may be about to start it
			for n := range b.NetworkSettings.Networks {
				k.nets[n] = true
			}
		}
		w.mu.Unlock()
	}
	w.keptNetworks(ctx)
}

// check compares what is known with what the daemon says; b is nil if there is no such container.
func (k *known) check(name string, b *box) error {
	switch {
	case !k.sure:
		return nil
	case k.exists != (b != nil):
		return fmt.Errorf("%s: is there: %v, should be: %v", name, b != nil, k.exists)
	case b == nil:
		return nil
	case k.running != b.running():
		return fmt.Errorf("%s: is %s (%s), should run: %v", name, b.State.Status, b.State.Error, k.running)
	}
	if got, want := sortedNames(b.NetworkSettings.Networks), sortedNames(k.nets); !slices.Equal(got, want) {
		return fmt.Errorf("%s: is on %v, should be on %v", name, got, want)
	}
	return nil
}

// keptNetworks looks for an order that explains every answer about networks' names. A takeover loses decisions, and may
// bring them back: then what was made must be there, and no more can be said.
func (w *world) keptNetworks(ctx context.Context) {
	all, err := w.agreed(ctx)
	if err != nil {
		w.violate("networks: %w", err)
		return
	}
	there := map[string]bool{}
	for _, n := range all {
		if there[n.Name] {
			w.violate("two networks are named %s", n.Name)
		}
		there[n.Name] = true
	}
	for name := range maps.Keys(w.mustExist) {
		if !there[name] {
			w.violate("%s was made and is not there", name)
		}
	}
	for n := range networks {
		w.history.begin(-1, netName(n), opList)(netAnswer{ok: there[netName(n)]})
	}
	if !w.recovered {
		if err := w.history.check(20 * time.Second); err != nil {
			w.violate("%w", err)
		}
	}
	w.history = newHistory()
	for n := range networks {
		w.history.begin(-1, netName(n), opList)(netAnswer{ok: there[netName(n)]})
	}
	for name := range there {
		w.mustExist[name] = true
	}
}

// whole compares every host's kernel, names and books with what all hosts' containers are.
func (w *world) whole(ctx context.Context) error {
	all, err := w.agreed(ctx)
	if err != nil {
		return err
	}
	var lists [][]box
	for _, d := range w.daemons {
		list, err := d.boxes(ctx)
		if err != nil {
			return err
		}
		lists = append(lists, list)
	}
	var errs []error
	for _, n := range all {
		errs = append(errs, w.wholeNetwork(ctx, n, lists))
	}
	return errors.Join(errs...)
}

func (w *world) wholeNetwork(ctx context.Context, n network, lists [][]box) error {
	want := placesOf(n.ID, lists)
	kept, err := keptFor(n.Name, lists)
	if err != nil {
		return err
	}
	for i, h := range w.hosts {
		local := slices.ContainsFunc(want, func(p place) bool { return p.host == i })
		if err := w.books(ctx, i, n, len(want), kept); err != nil {
			return err
		}
		if !local {
			continue
		}
		ns := "1-" + n.ID[:10]
		if err := w.rows(ctx, i, ns, want); err != nil {
			return fmt.Errorf("%s, %s: %w", h.Name(), n.Name, err)
		}
		for _, b := range lists[i] {
			if _, on := b.NetworkSettings.Networks[n.Name]; !on || !b.running() {
				continue
			}
			if err := w.answers(i, b, lists); err != nil {
				return fmt.Errorf("%s on %s, %s: %w", b.Name, h.Name(), n.Name, err)
			}
		}
	}
	return nil
}

// place is where an endpoint is.
type place struct {
	host int
	name string
	addr netip.Addr
	mac  string
}

func placesOf(networkID string, lists [][]box) []place {
	var out []place
	for i, list := range lists {
		for _, b := range list {
			for _, ep := range b.NetworkSettings.Networks {
				addr, err := netip.ParseAddr(ep.IPAddress)
				if b.running() && ep.NetworkID == networkID && err == nil {
					out = append(out, place{i, strings.TrimPrefix(b.Name, "/"), addr, strings.ToLower(ep.MacAddress)})
				}
			}
		}
	}
	return out
}

// keptFor counts the containers that do not run and whose addresses on a network are kept for them, since their users chose
// them. Those that run have what was chosen.
func keptFor(network string, lists [][]box) (kept int, err error) {
	for _, list := range lists {
		for _, b := range list {
			ep := b.NetworkSettings.Networks[network]
			switch {
			case ep.asked() == "":
			case !b.running():
				kept++
			case ep.IPAddress != ep.asked():
				return 0, fmt.Errorf("%s has %s on %s, its user chose %s", b.Name, ep.IPAddress, network, ep.asked())
			}
		}
	}
	return kept, nil
}

// books wants every host's reserve whole, and no address taken without a container. One that is kept for a container may have
// gone with its network, when that was removed and made again meanwhile.
func (w *world) books(ctx context.Context, host int, n network, used, kept int) error {
	var full network
	if err := w.daemons[host].call(ctx, "GET", "/networks/"+n.ID, nil, &full); err != nil {
		return err
	}
	total, size := used, 0
	for _, h := range w.hosts {
		size = max(size, len(full.Reserves[h.Name()]))
	}
	for _, h := range w.hosts {
		if got := len(full.Reserves[h.Name()]); got != size || got == 0 {
			return fmt.Errorf("host%d: %s has %d addresses of %s in reserve, others %d", host+1, h.Name(), got, n.Name, size)
		}
		total += size
	}
	for subnet, s := range full.Status.IPAM.Subnets {
		if s.IPsInUse < total || s.IPsInUse > total+kept {
			return fmt.Errorf("host%d: %s: %d addresses of %s in use, want %d containers', up to %d kept for some that do not run and %d in reserve: %v",
				host+1, n.Name, s.IPsInUse, subnet, used, kept, total-used, full.Reserves)
		}
	}
	return nil
}

// rows compares the kernel's two tables of a tunnel with where the endpoints are.
func (w *world) rows(ctx context.Context, host int, ns string, want []place) error {
	var fdb, neighbours []string
	for _, p := range want {
		if p.host != host {
			fdb = append(fdb, p.mac+" "+w.hosts[p.host].Addr().String())
			neighbours = append(neighbours, p.addr.String()+" "+p.mac)
		}
	}
	var gotFDB []struct{ Mac, Dst string }
	var gotNeighbours []struct{ Dst, Lladdr string }
	if err := w.list(ctx, host, &gotFDB, "bridge", "-j", "-n", ns, "fdb", "show", "dev", "vxlan0"); err != nil {
		return err
	}
	if err := w.list(ctx, host, &gotNeighbours, "ip", "-j", "-n", ns, "neigh", "show", "dev", "vxlan0", "nud", "permanent"); err != nil {
		return err
	}
	var haveFDB, haveNeighbours []string
	for _, r := range gotFDB {
		if r.Dst != "" {
			haveFDB = append(haveFDB, r.Mac+" "+r.Dst)
		}
	}
	for _, r := range gotNeighbours {
		haveNeighbours = append(haveNeighbours, r.Dst+" "+r.Lladdr)
	}
	return errors.Join(same("FDB rows", haveFDB, fdb), same("neighbour rows", haveNeighbours, neighbours))
}

func (w *world) list(ctx context.Context, host int, out any, args ...string) error {
	began := time.Now()
	text, errs, code := w.hosts[host].Run(ctx, args...)
	if took := time.Since(began); took > slow {
		w.log(fmt.Sprintf("  host%d: %s took %v", host+1, strings.Join(args, " "), took.Round(time.Millisecond)))
	}
	if code != 0 {
		return fmt.Errorf("%s: %s", strings.Join(args, " "), errs)
	}
	if strings.TrimSpace(text) == "" {
		return nil
	}
	return json.Unmarshal([]byte(text), out)
}

func same(what string, have, want []string) error {
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		return fmt.Errorf("%s: has %v, want %v", what, have, want)
	}
	return nil
}
