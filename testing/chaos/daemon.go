package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/minictl/minictl/testing/lab"
)

// callTime is how long a daemon may take for anything, on a machine as busy as can be. More is a hang.
const callTime = 2 * time.Minute

// slow is what is worth a line.
const slow = 5 * time.Second

// refused is a daemon's answer that is not yes.
type refused struct {
	code int
	text string
}

func (r *refused) Error() string { return fmt.Sprintf("%d: %s", r.code, r.text) }

// codeOf is the status of a refusal, 0 when there was no answer.
func codeOf(err error) int {
	var r *refused
	if errors.As(err, &r) {
		return r.code
	}
	return 0
}

// daemon is a host's, through its socket: what faults there are on the underlay, it can always be asked.
type daemon struct {
	host *lab.Host
	http *http.Client
	log  func(string)
}

func newDaemon(h *lab.Host, log func(string)) *daemon {
	c := h.HTTP()
	c.Transport.(*http.Transport).DisableKeepAlives = true // the host may be another one next time
	return &daemon{host: h, http: c, log: log}
}

// call asks. out may be nil.
func (d *daemon) call(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://minictl"+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	began := time.Now()
	defer func() {
		if took := time.Since(began); took > slow {
			d.log(fmt.Sprintf("  %s: %s %s took %v", d.host.Name(), method, path, took.Round(time.Millisecond)))
		}
	}()
	resp, err := d.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 {
		var e struct{ Message string }
		_ = json.NewDecoder(resp.Body).Decode(&e) // without a message the code has to do
		return &refused{resp.StatusCode, e.Message}
	}
	if out == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

// endpoint is what a daemon says of a container's place on a network.
type endpoint struct {
	NetworkID  string
	EndpointID string
	IPAddress  string
	MacAddress string
	DNSNames   []string
	IPAMConfig *struct{ IPv4Address string } // what was asked for
}

// asked is the address that the container's user chose; empty: none.
func (e endpoint) asked() string {
	if e.IPAMConfig == nil {
		return ""
	}
	return e.IPAMConfig.IPv4Address
}

// box is what a daemon says of a container.
type box struct {
	ID, Name string
	State    struct {
		Status string
		Pid    int
		Error  string
	}
	NetworkSettings struct{ Networks map[string]endpoint }
}

func (b *box) running() bool { return b.State.Status == "running" }

// boxes inspects all containers of a host.
func (d *daemon) boxes(ctx context.Context) ([]box, error) {
	var list []struct{ ID string }
	if err := d.call(ctx, "GET", "/containers/json?all=1", nil, &list); err != nil {
		return nil, err
	}
	var out []box
	for _, c := range list {
		var b box
		err := d.call(ctx, "GET", "/containers/"+c.ID+"/json", nil, &b)
		if codeOf(err) == http.StatusNotFound {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// network is what a daemon says of a global network.
type network struct {
	ID   string `json:"Id"`
	Name string
	IPAM struct {
		Config []struct{ Subnet netip.Prefix }
	}
	Status struct {
		IPAM struct {
			Subnets map[string]struct{ IPsInUse, DynamicIPsAvailable int }
		}
	}
	Reserves map[string][]netip.Addr
}

// overlays lists the cluster's networks as a host knows them.
func (d *daemon) overlays(ctx context.Context) ([]network, error) {
	var out []network
	filters := url.QueryEscape(`{"driver":["overlay"]}`)
	return out, d.call(ctx, "GET", "/networks?filters="+filters, nil, &out)
}

// status is what cluster status tells.
type status struct {
	Epoch, Leader, Self string
	Summary             []string
	Nodes               []struct{ ID, Name, Status, Role, Addr string }
}

func (d *daemon) status(ctx context.Context) (s status, err error) {
	return s, d.call(ctx, "GET", "/cluster/status", nil, &s)
}
