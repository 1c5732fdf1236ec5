package main

import (
	"fmt"

	"github.com/minictl/minictl/testing/lab"
)

// engine is one of those that are measured side by side, on a host of its own that is joined to a second one.
type engine struct {
	client
	name   string
	dir    string // where its programs are; docker's only
	host   *lab.Host
	socket string       // of its API, as opened from outside the host
	runc   string       // where runc keeps its containers, in the host
	pids   func() []int // of its daemons
}

// ourName is the name of the engine under test.
const ourName = "minictl"

// ours is minictl on host1.
func (b *bench) ours() (engine, error) {
	if err := b.cluster(); err != nil {
		return engine{}, err
	}
	c, err := minictl(b.h1)
	return engine{client: c, name: ourName, host: b.h1, socket: b.h1.SocketPath(), runc: "/run/minictl/containerd/runc/minictl", pids: func() []int { return []int{b.h1.Running().Pid()} }}, err
}

// engines are minictl and, when it can be had, docker.
func (b *bench) engines() ([]engine, error) {
	mine, err := b.ours()
	if err != nil {
		return nil, err
	}
	docker, err := b.peer()
	if err != nil || docker == nil {
		return []engine{mine}, err
	}
	return []engine{mine, *docker}, nil
}

// turn is one measurement of one engine; its value counts as one of a sample.
type turn func(e *engine) (float64, error)

// turns measures every engine n times. They take turns, so that a passing load on the machine hits all of them. The samples
// are minictl's and docker's, the latter empty without it.
func (b *bench) turns(n int, measure turn) (pair, error) {
	all, err := b.engines()
	if err != nil {
		return pair{}, err
	}
	var p pair
	for range n {
		for k := range all {
			v, err := measure(&all[k])
			if err != nil {
				return pair{}, fmt.Errorf("%s: %w", all[k].name, err)
			}
			p.add(&all[k], v)
		}
	}
	return p, nil
}

// each calls fn with every engine.
func (b *bench) each(fn func(e *engine) error) error {
	all, err := b.engines()
	for i := range all {
		if err := fn(&all[i]); err != nil {
			return fmt.Errorf("%s: %w", all[i].name, err)
		}
	}
	return err
}
