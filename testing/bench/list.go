package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"

	"golang.org/x/sync/errgroup"
)

// listedContainers is how many containers `ps -a` lists.
const listedContainers = 500

// list times `ps -a` with many containers that never ran. They are made through the API, which both have: a command for
// each would take minutes.
func (b *bench) list() error {
	err := b.each(func(e *engine) error { return e.createMany(listedContainers) })
	if err != nil {
		return err
	}
	p, err := b.turns(b.n, func(e *engine) (float64, error) {
		c, err := e.run("ps", "-a")
		if n := strings.Count(c.out, "\n"); err == nil && n < listedContainers {
			err = fmt.Errorf("ps -a lists %d containers of %d", n, listedContainers)
		}
		return ms(c.wall), err
	})
	if err != nil {
		return err
	}
	b.table.add(versus(fmt.Sprintf("`ps -a` with %d containers", listedContainers), p, 1))
	return b.each(func(e *engine) error {
		_, err := e.run("container", "prune", "-f")
		return err
	})
}

// createMany makes containers that do not run.
func (e *engine) createMany(n int) error {
	http := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", e.socket)
	}}}
	defer http.CloseIdleConnections()
	var g errgroup.Group
	g.SetLimit(4)
	for i := range n {
		g.Go(func() error {
			body := strings.NewReader(`{"Image":"busybox","Cmd":["true"]}`)
			resp, err := http.Post(fmt.Sprintf("http://engine/containers/create?name=listed%d", i), "application/json", body)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if resp.StatusCode != 201 {
				return fmt.Errorf("create container: %s", resp.Status)
			}
			return nil
		})
	}
	return g.Wait()
}
