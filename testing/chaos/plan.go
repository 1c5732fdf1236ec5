package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// What may be done. A plan is made of the seed alone, never of answers, so that a seed replays.
const (
	opRun        = "run"
	opRemove     = "rm"
	opStop       = "stop"
	opStart      = "start"
	opRestart    = "restart"
	opConnect    = "connect"
	opDisconnect = "disconnect"
	opNetCreate  = "network create"
	opNetRemove  = "network rm"

	opPartition = "partition"  // a split into two sides
	opIsolate   = "isolate"    // one host from all others
	opMute      = "mute"       // one direction between two hosts
	opLoss      = "loss"       // a third of the frames to a host
	opDropUDP   = "drop udp"   // the control port's packets of a host; its streams pass
	opDropTCP   = "drop tcp"   // the other way round
	opHeal      = "heal"       // all of these
	opKill      = "kill"       // the daemon, SIGKILL
	opDaemon    = "new daemon" // the daemon, SIGTERM, and another in its place
	opBoot      = "boot"       // whatever of a host does not run
	opPowerCut  = "power cut"  // the whole host
	opRecover   = "recover"    // an operator's takeover
	opLeave     = "leave"      // and join again through another host
	opNodeRm    = "node rm"    // of a host without power; it comes back and joins anew
	opLostPower = "lost power" // of all hosts at once
	opMove      = "new address"
	opMoveOff   = "new address while the daemon is down"
	opSplit     = "taken over on both sides" // and an operator has one side join the other
)

// step is one thing to do.
type step struct {
	op   string
	host int
	slot int // of the container, on its host
	net  int
	arg  int // partition: the bits of one side; mute: the host that does not hear; leave, node rm: through whom it joins; taken over twice: the other side; run: 1 for --ip
	wait int // milliseconds after the round's begin
}

func (s step) String() string {
	switch s.op {
	case opRun, opConnect, opDisconnect:
		if s.asks() {
			return fmt.Sprintf("host%d: %s %s on %s --ip %s", s.host+1, s.op, containerName(s.host, s.slot), netName(s.net), s.address())
		}
		return fmt.Sprintf("host%d: %s %s on %s", s.host+1, s.op, containerName(s.host, s.slot), netName(s.net))
	case opRemove, opStop, opStart, opRestart:
		return fmt.Sprintf("host%d: %s %s", s.host+1, s.op, containerName(s.host, s.slot))
	case opNetCreate, opNetRemove:
		return fmt.Sprintf("host%d: %s %s", s.host+1, s.op, netName(s.net))
	case opHeal, opLostPower:
		return s.op
	case opPartition:
		return fmt.Sprintf("%s %b", s.op, s.arg)
	case opMute:
		return fmt.Sprintf("%s host%d to host%d", s.op, s.host+1, s.arg+1)
	}
	return fmt.Sprintf("host%d: %s", s.host+1, s.op)
}

// smallNetwork is the one with few addresses, and those that are asked for by --ip.
const (
	smallNetwork = 1
	smallSubnet  = "10.77.0.0/27"
)

// asks tells whether a container is to have an address of its user's choice.
func (s step) asks() bool { return s.op == opRun && s.net == smallNetwork && s.arg == 1 }

// address is that one, another for each container.
func (s step) address() string { return fmt.Sprintf("10.77.0.%d", 10+s.host*slotsPerHost+s.slot) }

// round is what is done at once: steps that users take, and at most one fault.
type round struct {
	users  []step
	fault  *step
	linger int // milliseconds until the next round: long enough, now and then, for others to notice
}

func (r round) String() string {
	var out []string
	for _, s := range r.users {
		out = append(out, s.String())
	}
	if r.fault != nil {
		out = append(out, strings.ToUpper(r.fault.String()))
	}
	if r.linger > 0 {
		out = append(out, fmt.Sprintf("wait %d ms", r.linger))
	}
	return strings.Join(out, "; ")
}

// episode is a number of rounds, after which all is healed and looked at, and then one change of the members, or none.
type episode struct {
	rounds     []round
	membership *step
}

const (
	slotsPerHost = 3
	networks     = 3
)

func containerName(host, slot int) string { return fmt.Sprintf("c%d-%d", host+1, slot) }
func netName(n int) string                { return fmt.Sprintf("net%d", n) }

// plan is all that a seed stands for.
func plan(seed uint64, hosts, episodes, rounds int) []episode {
	p := &planner{rng: rand.New(rand.NewPCG(seed, 0x6368616f73)), hosts: hosts}
	var out []episode
	for range episodes {
		p.down, p.faults, p.recovered = map[int]bool{}, 0, false
		var e episode
		e.rounds = append(e.rounds, p.networks(), p.containers())
		for i := range rounds {
			e.rounds = append(e.rounds, p.round(i))
		}
		e.membership = p.membership()
		out = append(out, e)
	}
	return out
}

// planner remembers only what keeps a plan from being dull.
type planner struct {
	rng       *rand.Rand
	hosts     int
	down      map[int]bool // without a daemon
	faults    int          // on the underlay
	recovered bool         // twice would be two clusters
}

// networks makes those that are missing: without one there is little to do.
func (p *planner) networks() round {
	var r round
	for n := range networks {
		r.users = append(r.users, step{op: opNetCreate, host: p.rng.IntN(p.hosts), net: n, wait: p.rng.IntN(200)})
	}
	return r
}

// containers fills half of the places.
func (p *planner) containers() round {
	var r round
	for h := range p.hosts {
		for slot := range slotsPerHost {
			if p.rng.IntN(2) == 0 {
				r.users = append(r.users, step{op: opRun, host: h, slot: slot, net: p.rng.IntN(networks), wait: p.rng.IntN(1000)})
			}
		}
	}
	return r
}

func (p *planner) round(i int) round {
	var r round
	used := map[[2]int]bool{}
	for range 1 + p.rng.IntN(4) {
		s := p.user()
		at := [2]int{s.host, s.slot}
		if s.op == opNetCreate || s.op == opNetRemove {
			at = [2]int{-1, s.net}
		}
		if used[at] || p.down[s.host] {
			continue
		}
		used[at] = true
		r.users = append(r.users, s)
	}
	if i > 0 && p.rng.IntN(3) > 0 {
		r.fault = p.fault()
	}
	if p.rng.IntN(6) == 0 {
		r.linger = 1000 + p.rng.IntN(9000)
	}
	return r
}

func (p *planner) user() step {
	s := step{host: p.rng.IntN(p.hosts), slot: p.rng.IntN(slotsPerHost), net: p.rng.IntN(networks), wait: p.rng.IntN(200)}
	switch n := p.rng.IntN(100); {
	case n < 45:
		s.op, s.arg = opRun, p.rng.IntN(2) // in the place of what had the name
	case n < 53:
		s.op = opRemove
	case n < 60:
		s.op = opStop
	case n < 67:
		s.op = opStart
	case n < 71:
		s.op = opRestart
	case n < 79:
		s.op = opConnect
	case n < 84:
		s.op = opDisconnect
	case n < 92:
		s.op = opNetCreate
	default:
		s.op = opNetRemove
	}
	return s
}

func (p *planner) fault() *step {
	s := &step{host: p.rng.IntN(p.hosts), wait: p.rng.IntN(300)}
	s.arg = (s.host + 1 + p.rng.IntN(p.hosts-1)) % p.hosts // another host
	n := p.rng.IntN(100)
	switch {
	case len(p.down) > 0 && n < 40:
		for s.host = range p.hosts { // a map's order would not replay
			if p.down[s.host] {
				break
			}
		}
		s.op = opBoot
		delete(p.down, s.host)
	case p.faults > 0 && n < 20:
		s.op, p.faults = opHeal, 0
	case p.faults+len(p.down) > 0 && !p.recovered && n < 45 && !p.down[s.host]:
		s.op, p.recovered = opRecover, true
	case n < 55:
		s.op = opPartition
		s.arg = 1 + p.rng.IntN(1<<p.hosts-2) // neither nobody nor everybody
		p.faults++
	case n < 62:
		s.op = opIsolate
		p.faults++
	case n < 68:
		s.op = opMute
		p.faults++
	case n < 72:
		s.op = opLoss
		p.faults++
	case n < 76:
		s.op = opDropUDP
		p.faults++
	case n < 80:
		s.op = opDropTCP
		p.faults++
	case p.down[s.host]:
		return nil
	case n < 84:
		s.op = opDaemon
	case n < 91:
		s.op = opKill
		p.down[s.host] = true
	case n < 98:
		s.op = opPowerCut
		p.down[s.host] = true
	default:
		s.op = opLostPower
		for h := range p.hosts {
			p.down[h] = true
		}
	}
	return s
}

func (p *planner) membership() *step {
	s := &step{host: p.rng.IntN(p.hosts)}
	s.arg = (s.host + 1 + p.rng.IntN(p.hosts-1)) % p.hosts
	switch p.rng.IntN(6) {
	case 0:
		s.op = opLeave
	case 1:
		s.op = opNodeRm
		if p.hosts < 3 { // of two, the one that decides cannot be removed by the other
			s.op = opLeave
		}
	case 2:
		s.op = opMove
	case 3:
		s.op = opMoveOff
	case 4:
		s.op = opSplit
		if p.hosts < 3 { // the one that decides goes on alone
			s.op = opMove
		}
	default:
		return nil
	}
	return s
}
