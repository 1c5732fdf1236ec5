package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
)

// Control speaks to a plugin as a test, by its socket.
type Control struct{ Socket string }

func (c Control) ask(ctx context.Context, what string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", c.Socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://plugin/Test."+what, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", what, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

// Calls are the calls heard since the last time: method and body, with short names for IDs.
func (c Control) Calls(ctx context.Context) (calls []string, err error) {
	err = c.ask(ctx, "Calls", nil, &calls)
	return calls, err
}

// Books are what the plugin holds.
func (c Control) Books(ctx context.Context) (b Books, err error) {
	err = c.ask(ctx, "Books", nil, &b)
	return b, err
}

// Set changes how the plugin is.
func (c Control) Set(ctx context.Context, o Options) error {
	return c.ask(ctx, "Options", o, &struct{}{})
}
