// Package registry has the commands about registries: login and logout. Credentials stay with the user, where docker's
// own clients keep and find them.
package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/docker/cli/cli/config/credentials"
	"github.com/docker/cli/cli/config/types"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
)

// hub is the key under which docker login has always kept the default registry's credentials.
const hub = "https://index.docker.io/v1/"

// Commands gives the commands that stand at the top level.
func Commands(c *console.Console) []*cobra.Command {
	return []*cobra.Command{newLoginCommand(c), newLogoutCommand(c)}
}

type loginOptions struct {
	user, password string
	fromStdin      bool
}

func newLoginCommand(c *console.Console) *cobra.Command {
	var o loginOptions
	cmd := &cobra.Command{
		Use:                   "login [OPTIONS] [SERVER]",
		Short:                 "Authenticate to a registry",
		Long:                  "Authenticate to a registry.\nDefaults to Docker Hub if no server is specified.",
		Example:               "  minictl login -u joe registry.example:5000\n  minictl login -u joe --password-stdin registry.example:5000 < token",
		Args:                  console.Between(0, 1),
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, args []string) error {
			if o.fromStdin && o.password != "" {
				return errors.New("conflicting options: cannot specify both --password and --password-stdin")
			}
			if o.fromStdin && o.user == "" {
				return errors.New("the --password-stdin option requires --username to be set")
			}
			return runLogin(ctx, cl, c, server(args), o)
		}),
	}
	fs := cmd.Flags()
	fs.StringVarP(&o.user, "username", "u", "", "Username")
	fs.StringVarP(&o.password, "password", "p", "", "Password or Personal Access Token (PAT)")
	fs.BoolVar(&o.fromStdin, "password-stdin", false, "Take the Password or Personal Access Token (PAT) from stdin")
	return cmd
}

func server(args []string) string {
	if len(args) == 0 || args[0] == "docker.io" {
		return hub
	}
	return args[0]
}

// loginClient is what login needs of the daemon.
type loginClient interface {
	RegistryLogin(ctx context.Context, o client.RegistryLoginOptions) (client.RegistryLoginResult, error)
}

func runLogin(ctx context.Context, cl loginClient, c *console.Console, addr string, o loginOptions) error {
	if err := o.complete(ctx, c); err != nil {
		return err
	}
	res, err := cl.RegistryLogin(ctx, client.RegistryLoginOptions{Username: o.user, Password: o.password, ServerAddress: addr})
	if err != nil {
		return err
	}
	keep := types.AuthConfig{Username: o.user, Password: o.password, ServerAddress: addr}
	if t := res.Auth.IdentityToken; t != "" {
		keep.Password, keep.IdentityToken = "", t
	}
	if err := c.Config().GetCredentialsStore(addr).Store(keep); err != nil {
		return fmt.Errorf("keep credentials: %w", err)
	}
	fmt.Fprintln(c.Out, res.Auth.Status)
	return nil
}

// complete asks for what the flags left out.
func (o *loginOptions) complete(ctx context.Context, c *console.Console) error {
	switch {
	case o.fromStdin:
		b, err := io.ReadAll(c.In)
		if err != nil {
			return err
		}
		o.password = strings.TrimRight(string(b), "\r\n")
	case o.password != "" && o.user != "":
		fmt.Fprintln(c.Err, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
	case !c.In.IsTerminal():
		return errors.New("cannot perform an interactive login from a non-TTY device: give --username and --password-stdin")
	default:
		if err := o.ask(ctx, c); err != nil {
			return err
		}
	}
	if o.user == "" {
		return errors.New("username is empty")
	}
	if o.password == "" {
		return errors.New("password is empty")
	}
	return nil
}

func (o *loginOptions) ask(ctx context.Context, c *console.Console) (err error) {
	if o.user == "" {
		if o.user, err = c.Ask(ctx, c.Out, "Username: "); err != nil {
			return err
		}
		o.user = strings.TrimSpace(o.user)
	}
	if o.password == "" {
		o.password, err = c.AskSecret(ctx, c.Out, "Password: ")
	}
	return err
}

func newLogoutCommand(c *console.Console) *cobra.Command {
	return &cobra.Command{
		Use:                   "logout [SERVER]",
		Short:                 "Log out from a registry",
		Long:                  "Log out from a registry.\nIf no server is specified, the default is Docker Hub.",
		Example:               "  minictl logout registry.example:5000",
		Args:                  console.Between(0, 1),
		ValidArgsFunction:     complete.None,
		DisableFlagsInUseLine: true,
		RunE: func(_ *cobra.Command, args []string) error {
			return runLogout(c, server(args))
		},
	}
}

// runLogout forgets all forms under which an address may have been kept.
func runLogout(c *console.Console, addr string) error {
	host := addr
	keys := []string{addr}
	if addr != hub {
		host = credentials.ConvertToHostname(addr)
		keys = append(keys, host, "http://"+host, "https://"+host)
	}
	fmt.Fprintln(c.Out, "Removing login credentials for", host)
	var errs []error
	for _, k := range keys {
		if err := c.Config().GetCredentialsStore(k).Erase(k); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == len(keys) {
		return fmt.Errorf("could not erase credentials: %w", errors.Join(errs...))
	}
	return nil
}
