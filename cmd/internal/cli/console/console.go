// Package console is what a command of the command line works with: the three streams, the daemon's client, docker's
// configuration file, and the errors that carry an exit code.
package console

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/streams"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/dial"
)

// Console is one invocation's surroundings. It belongs to one goroutine until a command hands its parts on.
type Console struct {
	In  *streams.In
	Out *streams.Out
	Err *streams.Out
	// Daemon says where the daemon is.
	Daemon dial.Options
	// Debug prints every request to the daemon on Err.
	Debug bool
	// Version is this program's.
	Version string

	client *client.Client
	config *configfile.ConfigFile
	lines  *bufio.Reader // of In, for Ask
}

// New wraps the streams; whether they are terminals is found out here, once.
func New(in io.ReadCloser, out, err io.Writer) *Console {
	return &Console{In: streams.NewIn(in), Out: streams.NewOut(out), Err: streams.NewOut(err)}
}

// Host is the daemon's address, such as unix:///run/minictl/minictl.sock or tcp://10.0.0.1:2376; empty while it cannot
// be told.
func (c *Console) Host() string {
	t, err := c.Daemon.Resolve(c.Config())
	if err != nil {
		return ""
	}
	return t.Host
}

// Client gives the daemon's client. Nothing is dialled before its first request, so that help and completion scripts
// need no daemon.
func (c *Console) Client() (*client.Client, error) {
	if c.client != nil {
		return c.client, nil
	}
	t, err := c.Daemon.Resolve(c.Config())
	if err != nil {
		return nil, err
	}
	o := append(t.Opts, client.WithUserAgent("minictl/"+c.Version), client.WithHTTPRequestHook(addHeaders))
	if c.Debug {
		o = append(o, client.WithHTTPRequestHook(func(r *http.Request) error {
			fmt.Fprintf(c.Err, "debug: %s %s\n", r.Method, r.URL.RequestURI())
			return nil
		}))
	}
	cl, err := client.New(o...)
	if err != nil {
		return nil, fmt.Errorf("host %q: %w", t.Host, err)
	}
	c.client = cl
	return cl, nil
}

// WithClient makes a command of what it does with the daemon.
func (c *Console) WithClient(do func(ctx context.Context, cl *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		cl, err := c.Client()
		if err != nil {
			return err
		}
		return do(cmd.Context(), cl, args)
	}
}

// headersKey is a context's headers for requests.
type headersKey struct{}

// WithHeader makes the daemon's client add a header, in which minictl says what docker's API has no field for.
func WithHeader(ctx context.Context, key, value string) context.Context {
	return context.WithValue(ctx, headersKey{}, http.Header{key: {value}})
}

func addHeaders(r *http.Request) error {
	h, _ := r.Context().Value(headersKey{}).(http.Header)
	maps.Copy(r.Header, h)
	return nil
}

// Config gives docker's own configuration file (credentials, detach keys, proxies), read at the first call. A broken
// file is reported and treated as empty: it must not stop a command that needs none of it.
func (c *Console) Config() *configfile.ConfigFile {
	if c.config == nil {
		if c.Daemon.ConfigDir != "" {
			config.SetDir(c.Daemon.ConfigDir)
		}
		c.config = config.LoadDefaultConfigFile(c.Err)
	}
	return c.config
}

// Warn prints what the daemon wants the user to know, beside the command's own output.
func (c *Console) Warn(warnings []string) {
	for _, w := range warnings {
		if w != "" {
			fmt.Fprintln(c.Err, "WARNING: "+w)
		}
	}
}

// ExitError ends the program with Code. Err is printed when it is not nil; a nil Err is a container's own exit code,
// about which there is nothing to say.
type ExitError struct {
	Code int
	Err  error
}

// Error is the text that is printed; empty when the code says it all.
func (e *ExitError) Error() string {
	if e.Err == nil {
		return ""
	}
	return e.Err.Error()
}

// Unwrap gives the cause.
func (e *ExitError) Unwrap() error { return e.Err }

// Exit wraps err with the exit code code; nil code means success.
func Exit(code int, err error) error {
	if code == 0 && err == nil {
		return nil
	}
	return &ExitError{Code: code, Err: err}
}

// Explain turns an error that a user meets often into one line that says what to do.
func (c *Console) Explain(err error) string {
	said, remote := dial.RemoteError(err)
	if !remote && !unreachable(err) {
		return err.Error()
	}
	host := c.Host()
	head := "cannot reach the minictl daemon at " + host + ": "
	if remote { // not asked again: ssh may want a password
		if strings.Contains(said, "not found") {
			said += ": minictl has to be installed there"
		}
		return head + said
	}
	switch cause := c.probe(); {
	case errors.Is(cause, os.ErrPermission):
		return head + "permission denied: use sudo, or join the group minictl"
	case strings.HasPrefix(host, "tcp://") && cause != nil:
		return head + cause.Error()
	case strings.HasPrefix(host, "tcp://"):
		return head + err.Error()
	}
	return head + `is it running? start it with "minictl daemon"`
}

// unreachable knows both the client's own class and a failed dial from requests that the client does not make itself.
func unreachable(err error) bool {
	var op *net.OpError
	return client.IsErrConnectionFailed(err) || errors.As(err, &op) && op.Op == "dial"
}
