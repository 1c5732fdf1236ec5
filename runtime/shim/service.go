package shim

import (
	"context"
	"fmt"
	"sync"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/log"
	"github.com/containerd/ttrpc"

	"github.com/minictl/minictl/runtime/shim/wire"
)

// service is runc's task service with the stdio in our own hands.
type service struct {
	taskapi.TTRPCTaskService

	mu     sync.Mutex
	stdio  *stdio // of the one container; nil when its stdout is not of our scheme
	bundle string // its folder, containerd's
}

// RegisterTTRPC implements containerd's shim.TTRPCService.
func (s *service) RegisterTTRPC(srv *ttrpc.Server) error {
	taskapi.RegisterTTRPCTaskService(srv, s)
	registerV2(srv, s)
	return nil
}

// Create puts FIFOs of the bundle in the place of our URI.
func (s *service) Create(ctx context.Context, r *taskapi.CreateTaskRequest) (*taskapi.CreateTaskResponse, error) {
	go expectMove(ctx)
	opts, ours, err := wire.ParseURI(r.Stdout)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	if !ours {
		return s.TTRPCTaskService.Create(ctx, r)
	}
	id := r.ID
	io, err := openStdio(r.Bundle, opts, func() {
		// The write end that containerd's part holds open goes as well, or the
		// container would never see the end of its input.
		_, _ = s.TTRPCTaskService.CloseIO(context.Background(), &taskapi.CloseIORequest{ID: id, Stdin: true})
	})
	if err != nil {
		return nil, errgrpc.ToGRPC(fmt.Errorf("open stdio: %w", err))
	}
	r.Stdin, r.Stdout, r.Stderr = io.paths()
	r.Terminal = opts.TTY
	io.start()
	resp, err := s.TTRPCTaskService.Create(ctx, r)
	io.opened()
	if err != nil {
		io.close()
		return nil, err
	}
	if io.input != nil {
		// Failing here leaves a container that cannot be talked to, but runs.
		if err := io.input.open(); err != nil {
			log.G(ctx).WithError(err).Warn("open stdin")
		}
	}
	s.mu.Lock()
	s.stdio, s.bundle = io, r.Bundle
	s.mu.Unlock()
	return resp, nil
}

// Start is containerd's; only an exec brings a process into the cgroup.
func (s *service) Start(ctx context.Context, r *taskapi.StartRequest) (*taskapi.StartResponse, error) {
	if r.ExecID != "" {
		go expectMove(ctx)
	}
	return s.TTRPCTaskService.Start(ctx, r)
}

// Delete waits, bounded, until the container's last byte is in the log. It does
// so before containerd's part closes the pipes with what is left in them.
func (s *service) Delete(ctx context.Context, r *taskapi.DeleteRequest) (*taskapi.DeleteResponse, error) {
	s.mu.Lock()
	io, bundle := s.stdio, s.bundle
	s.mu.Unlock()
	if r.ExecID != "" || io == nil {
		return s.TTRPCTaskService.Delete(ctx, r)
	}
	if st, err := s.State(ctx, &taskapi.StateRequest{ID: r.ID}); err == nil && st.Status == tasktypes.Status_STOPPED {
		io.drain()
	}
	resp, err := s.TTRPCTaskService.Delete(ctx, r)
	if err == nil {
		io.close()
		// Without the note there is only more to do for containerd's clearing up.
		if err := noteDeleted(bundle, resp); err != nil {
			log.G(ctx).WithError(err).Warn("note deletion")
		}
	}
	return resp, err
}

// Pids names the main process even when it has exited. A starting containerd
// takes a shim without processes for leaked and deletes it, and with it the exit
// status of every container that ended while the daemon was down; this way the
// task stays, stopped, until the daemon has asked and deletes it.
func (s *service) Pids(ctx context.Context, r *taskapi.PidsRequest) (*taskapi.PidsResponse, error) {
	resp, err := s.TTRPCTaskService.Pids(ctx, r)
	if err == nil && len(resp.Processes) > 0 {
		return resp, nil
	}
	st, serr := s.State(ctx, &taskapi.StateRequest{ID: r.ID})
	if serr != nil || st.Status != tasktypes.Status_STOPPED {
		return resp, err
	}
	return &taskapi.PidsResponse{Processes: []*tasktypes.ProcessInfo{{Pid: st.Pid}}}, nil
}
