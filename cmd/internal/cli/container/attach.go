package container

import (
	"context"
	"errors"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
	"github.com/minictl/minictl/cmd/internal/cli/stream"
)

type attachOptions struct {
	noStdin, sigProxy bool
	detachKeys        string
}

func newAttachCommand(c *console.Console) *cobra.Command {
	var o attachOptions
	cmd := each("attach [OPTIONS] CONTAINER",
		"Attach local standard input, output, and error streams to a running container",
		"  minictl attach bbox1", complete.First(1, complete.Containers(c, false)))
	cmd.Args = console.Exactly(1)
	fs := cmd.Flags()
	fs.BoolVar(&o.noStdin, "no-stdin", false, "Do not attach STDIN")
	fs.BoolVar(&o.sigProxy, "sig-proxy", true, "Proxy all received signals to the process")
	fs.StringVar(&o.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	cmd.RunE = c.WithClient(func(ctx context.Context, cl *client.Client, args []string) error {
		return runAttach(ctx, cl, c, o, args[0])
	})
	return cmd
}

// runAttach joins a container that runs already. It ends with the container's own code, as run does.
func runAttach(ctx context.Context, cl inspectFollowClient, c *console.Console, o attachOptions, ref string) error {
	if err := stream.CheckDetachKeys(o.detachKeys); err != nil {
		return err
	}
	res, err := cl.ContainerInspect(ctx, ref, client.ContainerInspectOptions{})
	if err != nil {
		return err
	}
	ctr := res.Container
	if err := attachable(ctr.State); err != nil {
		return err
	}
	if err := checkTTY(c.In, !o.noStdin && ctr.Config.OpenStdin, ctr.Config.Tty); err != nil {
		return err
	}
	f := follow{id: ctr.ID, tty: ctr.Config.Tty, stdin: !o.noStdin && ctr.Config.OpenStdin, stdout: true, stderr: true,
		detachKeys: detachKeys(c, o.detachKeys)}
	if o.sigProxy && !f.tty {
		defer f.forward(ctx, cl)()
		ctx = context.WithoutCancel(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Not next-exit: a container that ended since the inspection would never be heard of.
	w := cl.ContainerWait(ctx, ctr.ID, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	conn, err := cl.ContainerAttach(ctx, ctr.ID, client.ContainerAttachOptions{Stream: true, Stdin: f.stdin,
		Stdout: true, Stderr: true, DetachKeys: f.detachKeys})
	if err != nil {
		return err
	}
	defer conn.Close()
	if f.tty {
		redraw(ctx, c, f.resizer(cl))
	}
	err = f.session(c, conn.HijackedResponse).Run(ctx)
	switch {
	case errors.Is(err, stream.ErrDetached):
		return nil
	case err != nil:
		return err
	}
	return exitStatus(w)
}

// redraw makes the program inside draw itself anew: only a change of size does, so there is one, and back.
func redraw(ctx context.Context, c *console.Console, set func(context.Context, uint, uint) error) {
	if h, w := c.Out.GetTtySize(); h != 0 || w != 0 {
		_ = set(ctx, h+1, w+1) // a cosmetic step: the true size follows
	}
	stream.FollowSize(ctx, c.Out, set)
}

// attachable refuses what the daemon would accept and never answer.
func attachable(s *container.State) error {
	switch {
	case s == nil || !s.Running:
		return errors.New("cannot attach to a stopped container, start it first")
	case s.Paused:
		return errors.New("cannot attach to a paused container, unpause it first")
	case s.Restarting:
		return errors.New("cannot attach to a restarting container, wait until it is running")
	}
	return nil
}
