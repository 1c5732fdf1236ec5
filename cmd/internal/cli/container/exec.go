package container

import (
	"context"
	"errors"
	"fmt"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
	"github.com/minictl/minictl/cmd/internal/cli/stream"
)

type execOptions struct {
	interactive, tty, detach, privileged bool
	user, workdir, detachKeys            string
	env, envFile                         opts.ListOpts
	container                            string
	command                              []string
}

func newExecCommand(c *console.Console) *cobra.Command {
	o := execOptions{env: opts.NewListOpts(opts.ValidateEnv), envFile: opts.NewListOpts(nil)}
	cmd := &cobra.Command{
		Use:   "exec [OPTIONS] CONTAINER COMMAND [ARG...]",
		Short: "Execute a command in a running container",
		Example: `  minictl exec bbox1 ip route
  minictl exec -it bbox1 sh`,
		Args:                  console.AtLeast(2),
		ValidArgsFunction:     complete.First(1, complete.Containers(c, false)),
		DisableFlagsInUseLine: true,
		RunE: c.WithClient(func(ctx context.Context, cl *client.Client, args []string) error {
			o.container, o.command = args[0], args[1:]
			return runExec(ctx, cl, c, &o)
		}),
	}
	fs := cmd.Flags()
	fs.SetInterspersed(false) // what follows the container is the command's
	fs.BoolVarP(&o.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	fs.BoolVarP(&o.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	fs.BoolVarP(&o.detach, "detach", "d", false, "Detached mode: run command in the background")
	fs.BoolVar(&o.privileged, "privileged", false, "Give extended privileges to the command")
	fs.StringVarP(&o.user, "user", "u", "", `Username or UID (format: "<name|uid>[:<group|gid>]")`)
	fs.StringVarP(&o.workdir, "workdir", "w", "", "Working directory inside the container")
	fs.StringVar(&o.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	fs.VarP(&o.env, "env", "e", "Set environment variables")
	fs.Var(&o.envFile, "env-file", "Read in a file of environment variables")
	return cmd
}

// execClient is what exec needs of the daemon.
type execClient interface {
	ContainerInspect(ctx context.Context, id string, o client.ContainerInspectOptions) (client.ContainerInspectResult, error)
	client.ExecAPIClient
}

// runExec checks everything it can before the exec exists: the API has no call that removes one.
func runExec(ctx context.Context, cl execClient, c *console.Console, o *execOptions) error {
	request, err := o.request(c)
	if err != nil {
		return err
	}
	if !o.detach {
		// "No such container" is worth more than "not a terminal", so it comes first.
		if _, err := cl.ContainerInspect(ctx, o.container, client.ContainerInspectOptions{}); err != nil {
			return err
		}
		if err := checkTTY(c.In, o.interactive, o.tty); err != nil {
			return err
		}
	}
	created, err := cl.ExecCreate(ctx, o.container, request)
	if err != nil {
		return err
	}
	if o.detach {
		_, err := cl.ExecStart(ctx, created.ID, client.ExecStartOptions{
			Detach: true, TTY: o.tty, ConsoleSize: request.ConsoleSize})
		return startError(err)
	}
	return o.attach(ctx, cl, c, created.ID, request)
}

// request attaches nothing when detached: the daemon would keep pipes that nobody reads.
func (o *execOptions) request(c *console.Console) (client.ExecCreateOptions, error) {
	if err := stream.CheckDetachKeys(o.detachKeys); err != nil {
		return client.ExecCreateOptions{}, err
	}
	env, err := opts.ReadKVEnvStrings(o.envFile.GetSlice(), o.env.GetSlice())
	if err != nil {
		return client.ExecCreateOptions{}, fmt.Errorf("--env-file: %w", err)
	}
	r := client.ExecCreateOptions{
		User: o.user, Privileged: o.privileged, TTY: o.tty, Env: env, WorkingDir: o.workdir, Cmd: o.command,
		DetachKeys:   detachKeys(c, o.detachKeys),
		AttachStdin:  o.interactive && !o.detach,
		AttachStdout: !o.detach, AttachStderr: !o.detach,
	}
	if o.tty {
		r.ConsoleSize.Height, r.ConsoleSize.Width = c.Out.GetTtySize()
	}
	return r, nil
}

// attach runs the command with its streams ours, and gives its exit code.
func (o *execOptions) attach(ctx context.Context, cl execClient, c *console.Console, id string,
	request client.ExecCreateOptions) error {
	conn, err := cl.ExecAttach(ctx, id, client.ExecAttachOptions{TTY: o.tty, ConsoleSize: request.ConsoleSize})
	if err != nil {
		return startError(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if o.tty {
		stream.FollowSize(ctx, c.Out, func(ctx context.Context, h, w uint) error {
			_, err := cl.ExecResize(ctx, id, client.ExecResizeOptions{Height: h, Width: w})
			return err
		})
	}
	s := &stream.Session{Out: c.Out, Err: c.Err, Conn: conn.HijackedResponse, TTY: o.tty, DetachKeys: request.DetachKeys}
	if o.interactive {
		s.In = c.In
	}
	if err := s.Run(ctx); err != nil {
		if errors.Is(err, stream.ErrDetached) {
			return nil
		}
		return err
	}
	res, err := cl.ExecInspect(ctx, id, client.ExecInspectOptions{})
	if err != nil {
		return console.Exit(exitDaemon, err)
	}
	return console.Exit(res.ExitCode, nil)
}
