package sandbox

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/minictl/minictl/netdriver"
	"github.com/minictl/minictl/netdriver/nl"
)

// lentAs comes before the name that a borrowed link has at home, at the end of its alias.
const lentAs = " lent as "

// lender gives the name at home of a link that another program made; ok is false for any other link.
func lender(alias string) (home string, ok bool) {
	if !strings.HasPrefix(alias, aliasPrefix) {
		return "", false
	}
	_, home, ok = strings.Cut(alias, lentAs)
	return home, ok && home != ""
}

// Borrow moves a link that another program made on the host into a sandbox, as the endpoint's interface; Furnish then
// brings it into its state. Its alias is there before it moves, so that it is known wherever it is. c is the host's.
func Borrow(c *nl.Conn, link string, e netdriver.Endpoint, s netdriver.Sandbox) error {
	l, err := c.Link(link)
	if err != nil {
		return err
	}
	if _, _, ours := parseAlias(l.Alias); ours {
		return fmt.Errorf("link %s is another endpoint's: %w", link, errdefs.ErrAlreadyExists)
	}
	if err := c.SetAlias(l.Index, alias(e)+lentAs+link); err != nil {
		return err
	}
	if err := c.Move(l.Index, e.Interface, s.Path); err != nil {
		return errors.Join(err, c.SetAlias(l.Index, ""))
	}
	return nil
}

// Borrowed finds the interface that an endpoint has in the sandbox at path; ErrNotFound if it has none, or there is no
// such sandbox.
func Borrowed(path string, id netdriver.EndpointID) (nl.Link, error) {
	c, err := nl.At(path)
	if err != nil {
		return nl.Link{}, err
	}
	defer c.Close()
	links, err := c.Links()
	if err != nil {
		return nl.Link{}, err
	}
	for _, l := range links {
		if _, lent := lender(l.Alias); lent && IsPlug(l, id) {
			return l, nil
		}
	}
	return nl.Link{}, fmt.Errorf("find the interface of endpoint %s: %w", id, errdefs.ErrNotFound)
}

// Return gives an endpoint's borrowed interface back to the namespace of the calling thread, under its name there; nil
// if there is none.
func Return(path string, id netdriver.EndpointID) error {
	l, err := Borrowed(path, id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	home, _ := lender(l.Alias)
	in, err := nl.At(path)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := in.Move(l.Index, home, nl.Self); err != nil {
		return err
	}
	out, err := nl.Here()
	if err != nil {
		return err
	}
	defer out.Close()
	back, err := out.Link(home)
	if err != nil {
		return err
	}
	return out.SetAlias(back.Index, "")
}

// Announce tells the neighbours of a borrowed interface about its addresses, as soon as it carries frames. One that does
// not in time is no error: whoever made it may want to wait for something. c is the host's.
func Announce(ctx context.Context, c *nl.Conn, p Plug) error {
	in, err := nl.At(p.Sandbox.Path)
	if err != nil {
		return err
	}
	defer in.Close()
	l, err := in.Link(p.Endpoint.Interface)
	if err != nil {
		return err
	}
	if err := awaitUp(ctx, in, l.Index); err != nil {
		return ctx.Err()
	}
	// What is sent before the other end's bridge forwards is lost.
	if port, err := c.LinkAt(l.Peer); l.Kind == "veth" && err == nil && port.Kind == "veth" && port.Peer == l.Index {
		if err := awaitUp(ctx, c, port.Index); err != nil {
			return ctx.Err()
		}
	}
	if len(l.MAC) == 0 {
		return nil
	}
	return in.SetMAC(l.Index, l.MAC)
}
