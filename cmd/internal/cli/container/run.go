package container

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/minictl/minictl/cmd/internal/cli/complete"
	"github.com/minictl/minictl/cmd/internal/cli/console"
	"github.com/minictl/minictl/cmd/internal/cli/stream"
)

// cleanupTime bounds the removal of a container that never ran.
const cleanupTime = 10 * time.Second

type runOptions struct {
	createOptions
	detach, sigProxy bool
	detachKeys       string
}

func newRunCommand(c *console.Console) *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short: "Create and run a new container from an image",
		Example: `  minictl run -itd --name bbox1 --network ov_net1 busybox
  minictl run -d -p 80:80 --name web1 --network ov_net1 httpd
  minictl run --rm busybox ip route`,
		Args:                  console.AtLeast(1),
		ValidArgsFunction:     complete.First(1, complete.Images(c)),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.setArgs(args)
			cl, err := c.Client()
			if err != nil {
				return err
			}
			return runRun(cmd.Context(), cl, c, cmd.Flags(), &o)
		},
	}
	fs := cmd.Flags()
	o.add(fs)
	fs.BoolVarP(&o.detach, "detach", "d", false, "Run container in background and print container ID")
	fs.BoolVar(&o.sigProxy, "sig-proxy", true, "Proxy received signals to the process")
	fs.StringVar(&o.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	completeCreateFlags(c, cmd)
	return cmd
}

// runClient is what run needs of the daemon.
type runClient interface {
	createClient
	followClient
	ContainerRemove(ctx context.Context, id string, o client.ContainerRemoveOptions) (client.ContainerRemoveResult, error)
}

// runRun is create, attach, wait, start. When it fails before the container runs it removes it again: a second try with
// the same name must not fail for another reason.
func runRun(ctx context.Context, cl runClient, c *console.Console, fs *pflag.FlagSet, o *runOptions) error {
	s, err := o.spec(c, fs)
	if err != nil {
		return console.Exit(exitDaemon, err)
	}
	if err := o.shapeStreams(c, s); err != nil {
		return console.Exit(exitDaemon, err)
	}
	id, err := create(ctx, cl, c, s, &o.createOptions)
	if err != nil {
		return startError(err)
	}
	if o.detach || !attached(s) {
		_, err = cl.ContainerStart(ctx, id, client.ContainerStartOptions{})
		if err != nil {
			err = errNotStarted{err}
		} else {
			fmt.Fprintln(c.Out, id)
		}
	} else {
		err = o.follow(id, c, s).run(ctx, cl, c)
	}
	var unstarted errNotStarted
	if errors.As(err, &unstarted) {
		discard(ctx, cl, id, s)
		return startError(unstarted.error)
	}
	return err
}

// shapeStreams settles what is attached, before anything exists that would have to be removed again.
func (o *runOptions) shapeStreams(c *console.Console, s *spec) error {
	if err := stream.CheckDetachKeys(o.detachKeys); err != nil {
		return err
	}
	if !o.detach {
		return checkTTY(c.In, s.config.AttachStdin, s.config.Tty)
	}
	if o.flags.process.attach.Len() > 0 {
		return errors.New("conflicting options: cannot specify both --attach and --detach")
	}
	s.config.AttachStdin, s.config.AttachStdout, s.config.AttachStderr = false, false, false
	s.config.StdinOnce = false
	return nil
}

func attached(s *spec) bool {
	return s.config.AttachStdin || s.config.AttachStdout || s.config.AttachStderr
}

func (o *runOptions) follow(id string, c *console.Console, s *spec) follow {
	return follow{
		id: id, tty: s.config.Tty,
		stdin: s.config.AttachStdin, stdout: s.config.AttachStdout, stderr: s.config.AttachStderr,
		detachKeys: detachKeys(c, o.detachKeys), signals: o.sigProxy, removed: s.host.AutoRemove,
	}
}

// detachKeys gives the flag's, else those of docker's configuration file.
func detachKeys(c *console.Console, flag string) string {
	if flag != "" {
		return flag
	}
	return c.Config().DetachKeys
}

// discard removes a container that was created and never ran: run either runs or leaves nothing. It works on even
// when the reason was the user's interrupt.
func discard(ctx context.Context, cl runClient, id string, s *spec) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	// The daemon may have removed it itself (--rm); the start's error is the one to report.
	_, _ = cl.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	if s.host.ContainerIDFile != "" {
		(&cidFile{path: s.host.ContainerIDFile}).close()
	}
}
