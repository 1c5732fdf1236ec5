package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/containerd/errdefs"
)

// What a plugin may implement, as its answer to Plugin.Activate says.
const (
	networkDriver = "NetworkDriver"
	ipamDriver    = "IpamDriver"
)

// maxAnswer bounds what a plugin may answer, in bytes; maxSentence what of its complaint is shown.
const (
	maxAnswer   = 1 << 20
	maxSentence = 1 << 10
)

// mediaType is the protocol's version that docker's client names.
const mediaType = "application/vnd.docker.plugins.v1.2+json"

// errNoMethod is a plugin's 404: it does not know the method, which some need not.
var errNoMethod = errors.New("not implemented by the plugin")

// plugin is one program.
type plugin struct {
	name string
	cfg  Config
	log  *slog.Logger

	mu sync.Mutex // guards peer
	// peer is the program that answered last; nil: it has to be looked for, and greeted.
	peer *peer
}

// peer is a plugin that has been greeted.
type peer struct {
	at         place
	socket     fs.FileInfo // of a unix socket, by which it is known again
	client     *http.Client
	implements []string
	network    Capabilities
	ipam       ipamCapabilities
}

// A refusal is what a plugin has answered, understood, and will not do.
type refusal struct {
	plugin, method, sentence string
}

// Error gives the plugin's own sentence.
func (r *refusal) Error() string {
	return fmt.Sprintf("plugin %s refuses %s: %s", r.plugin, r.method, r.sentence)
}

// refused tells whether the plugin itself has said no: it is there, and has heard.
func refused(err error) bool {
	var r *refusal
	return errors.As(err, &r) || errors.Is(err, errNoMethod)
}

// unreachable is a plugin that could not be spoken to.
type unreachable struct{ err error }

// Error says why.
func (u *unreachable) Error() string { return u.err.Error() }

// Unwrap gives the cause.
func (u *unreachable) Unwrap() error { return u.err }

// call asks the plugin, of which kind is wanted, and greets it before if it is new. A plugin that cannot be reached is tried again
// after 1, 2, 4 … seconds, as docker's client does it, until limit is over; so is one that ends in the middle of a call. One
// that hangs is given up when limit is over. The errors are ErrNotFound for a plugin that is not there, ErrUnavailable
// for one that does not answer, a refusal, or errNoMethod.
func (p *plugin) call(ctx context.Context, limit time.Duration, kind, method string, in, out any) error {
	began := time.Now()
	bound, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for wait := time.Second; ; wait *= 2 {
		err := p.try(bound, kind, method, in, out)
		var gone *unreachable
		switch {
		case err == nil || !errors.As(err, &gone):
			return err
		case ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded):
			return ctx.Err()
		case bound.Err() != nil:
			return fmt.Errorf("plugin %s did not answer %s.%s within %s: see whether it hangs, then try again: %w",
				p.name, kind, method, time.Since(began).Round(100*time.Millisecond), errdefs.ErrUnavailable)
		}
		if deadline, ok := bound.Deadline(); ok && time.Until(deadline) <= wait {
			return fmt.Errorf("plugin %s cannot be reached for %s.%s (tried for %s): start it, then try again: %w: %w",
				p.name, kind, method, time.Since(began).Round(100*time.Millisecond), gone.err, errdefs.ErrUnavailable)
		}
		p.log.Warn("the plugin cannot be reached, it is tried again", "method", kind+"."+method, "wait", wait, "err", gone.err)
		if sleep(bound, wait) != nil {
			return ctx.Err()
		}
	}
}

// try is one attempt.
func (p *plugin) try(ctx context.Context, kind, method string, in, out any) error {
	to, err := p.greet(ctx, kind)
	if err != nil {
		return err
	}
	err = to.ask(ctx, p.name, kind+"."+method, in, out)
	p.drop(to, err)
	return err
}

// drop forgets a peer that could not be spoken to: another program may answer the next time.
func (p *plugin) drop(to *peer, err error) {
	var gone *unreachable
	if !errors.As(err, &gone) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.peer == to {
		p.peer = nil
	}
}

// hello is greet for who wants to know what the plugin says of itself, once and for limit at most.
func (p *plugin) hello(ctx context.Context, kind string) (*peer, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Patience)
	defer cancel()
	to, err := p.greet(ctx, kind)
	var gone *unreachable
	if errors.As(err, &gone) {
		return nil, fmt.Errorf("plugin %s cannot be reached: start it, then try again: %w: %w", p.name, gone.err, errdefs.ErrUnavailable)
	}
	return to, err
}

// greet gives the plugin once it has said what it implements, which kind must be among.
func (p *plugin) greet(ctx context.Context, kind string) (*peer, error) {
	at, err := locate(p.cfg, p.name)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	to := p.peer
	p.mu.Unlock()
	if to == nil || !to.is(at) {
		to = &peer{at: at, socket: at.stat(), client: at.client()}
		if err := p.introduce(ctx, to); err != nil {
			return nil, err
		}
		p.mu.Lock()
		p.peer = to
		p.mu.Unlock()
	}
	if !slices.Contains(to.implements, kind) {
		return nil, fmt.Errorf("plugin %s does not implement %s, only %s: %w", p.name, kind, strings.Join(to.implements, ", "), errdefs.ErrNotFound)
	}
	return to, nil
}

// is tells whether the plugin at a place is still the one that was greeted: another program makes another socket.
func (to *peer) is(at place) bool {
	now := at.stat()
	if to.at.network != at.network || to.at.addr != at.addr || (now == nil) != (to.socket == nil) {
		return false
	}
	return now == nil || os.SameFile(now, to.socket) && now.ModTime().Equal(to.socket.ModTime())
}

// stat is nil unless the place is a unix socket.
func (at place) stat() fs.FileInfo {
	if at.network != "unix" {
		return nil
	}
	fi, err := os.Stat(at.addr)
	if err != nil {
		return nil
	}
	return fi
}

// introduce asks a new peer what it is.
func (p *plugin) introduce(ctx context.Context, to *peer) error {
	var manifest struct{ Implements []string }
	if err := to.ask(ctx, p.name, "Plugin.Activate", nil, &manifest); err != nil {
		return err
	}
	to.implements = manifest.Implements
	for _, kind := range to.implements {
		switch kind {
		case networkDriver:
			if err := to.ask(ctx, p.name, networkDriver+".GetCapabilities", nil, &to.network); err != nil {
				return err
			}
			if err := to.network.check(p.name); err != nil {
				return err
			}
		case ipamDriver:
			if err := to.ask(ctx, p.name, ipamDriver+".GetCapabilities", nil, &to.ipam); err != nil && !refused(err) {
				return err // to answer it is optional
			}
		}
	}
	return nil
}

// client speaks to a place, over one connection where it can.
func (at place) client() *http.Client {
	dialer := &net.Dialer{}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, at.network, at.addr)
			},
			TLSClientConfig: at.tls, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// ask sends one request and reads its answer.
func (to *peer) ask(ctx context.Context, name, method string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("%s: %w", method, err)
		}
	}
	scheme := "http://plugin/"
	if to.at.tls != nil {
		scheme = "https://" + to.at.addr + "/"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, scheme+method, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	req.Header.Set("Accept", mediaType)
	req.Header.Set("Content-Type", mediaType)
	resp, err := to.client.Do(req)
	if err != nil {
		return &unreachable{fmt.Errorf("%s: %w", to.at, err)}
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return &unreachable{fmt.Errorf("%s: %w", to.at, err)}
	}
	return decode(name, method, resp.StatusCode, answer, out)
}

// decode reads an answer. Network drivers complain in Err, address managers in Error; either is heard from both.
func decode(name, method string, status int, answer []byte, out any) error {
	if len(answer) > maxAnswer {
		return fmt.Errorf("plugin %s answers %s with more than %d bytes", name, method, maxAnswer)
	}
	var complaint struct{ Err, Error string }
	bad := json.Unmarshal(answer, &complaint)
	switch sentence := complaint.Err + complaint.Error; {
	case bad == nil && sentence != "":
		return &refusal{name, method, printable(sentence)}
	case status == http.StatusNotFound:
		return fmt.Errorf("plugin %s: %s: %w", name, method, errNoMethod)
	case status != http.StatusOK:
		return &refusal{name, method, printable(fmt.Sprintf("status %d: %s", status, answer))}
	case len(bytes.TrimSpace(answer)) == 0:
		return nil // some say nothing where the protocol wants {}
	case bad != nil:
		return fmt.Errorf("plugin %s answers %s with what is no JSON object: %w", name, method, bad)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("plugin %s answers %s with other JSON than the protocol's: %w", name, method, err)
	}
	return nil
}

// printable makes one line of at most maxSentence bytes out of whatever a plugin says.
func printable(s string) string {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s[:min(len(s), maxSentence)], "?")))
	return s
}
