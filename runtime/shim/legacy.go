package shim

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
)

// Before 2.3, containerd started a shim with flags alone and expected its address
// as text; the packages used here know the newer protocol only. A system's own
// containerd (--containerd) is often an old one, so both are answered.

// call is a shim's command line.
type call struct {
	id, namespace, address string
	debug                  bool
	action                 string
}

// parseCall reads containerd's command line; ok is false when it has flags of
// some later version, which the newer protocol is left to judge.
func parseCall(args []string) (c call, ok bool) {
	fs := flag.NewFlagSet("shim", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&c.id, "id", "", "")
	fs.StringVar(&c.namespace, "namespace", "", "")
	fs.StringVar(&c.address, "address", "", "")
	fs.BoolVar(&c.debug, "debug", false, "")
	for _, name := range []string{"publish-binary", "socket", "bundle"} {
		fs.String(name, "", "")
	}
	err := fs.Parse(args)
	c.action = fs.Arg(0)
	return c, err == nil
}

// modern says whether input is the newer protocol's message for this call. Runtime
// options, which older versions send, may decode as one by chance.
func (c call) modern(input []byte) bool {
	var p bootapi.BootstrapParams
	return len(input) > 0 && proto.Unmarshal(input, &p) == nil && p.InstanceID == c.id && p.Namespace == c.namespace
}

// startLegacy answers a "start" of the older protocol. When the call is anything
// else it does nothing, with stdin as it was.
func startLegacy(m shim.Shim, args []string) (done bool, err error) {
	c, ok := parseCall(args)
	if !ok || c.action != "start" {
		return false, nil
	}
	input, err := io.ReadAll(io.LimitReader(os.Stdin, 10<<20))
	if err != nil {
		return true, fmt.Errorf("read stdin: %w", err)
	}
	if c.modern(input) {
		return false, giveBack(input)
	}
	params := &bootapi.BootstrapParams{
		InstanceID: c.id, Namespace: c.namespace,
		ContainerdGrpcAddress: c.address, ContainerdTtrpcAddress: os.Getenv("TTRPC_ADDRESS"),
	}
	if c.debug {
		params.LogLevel = bootapi.LogLevel_LOG_LEVEL_DEBUG
	}
	res, err := m.Start(namespaces.WithNamespace(context.Background(), c.namespace), params)
	if err != nil {
		return true, err
	}
	// Containerd 1.x finds the shim again by this file after a restart.
	if err := os.WriteFile("address", []byte(res.Address), 0o600); err != nil {
		return true, err
	}
	_, err = os.Stdout.WriteString(res.Address)
	return true, err
}

// giveBack makes input readable from stdin again.
func giveBack(input []byte) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	os.Stdin = r
	go func() {
		_, _ = io.Copy(w, bytes.NewReader(input)) // the reader notices what is missing
		w.Close()
	}()
	return nil
}

// registerV2 serves the task API under its older name as well: containerd 1.x asks
// for version 2, whose messages are the same.
func registerV2(srv *ttrpc.Server, s taskapi.TTRPCTaskService) {
	srv.RegisterService("containerd.task.v2.Task", &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"State": method(s.State), "Create": method(s.Create), "Start": method(s.Start), "Delete": method(s.Delete),
		"Pids": method(s.Pids), "Pause": method(s.Pause), "Resume": method(s.Resume), "Checkpoint": method(s.Checkpoint),
		"Kill": method(s.Kill), "Exec": method(s.Exec), "ResizePty": method(s.ResizePty), "CloseIO": method(s.CloseIO),
		"Update": method(s.Update), "Wait": method(s.Wait), "Stats": method(s.Stats), "Connect": method(s.Connect),
		"Shutdown": method(s.Shutdown),
	}})
}

func method[Req, Resp any](f func(context.Context, *Req) (*Resp, error)) ttrpc.Method {
	return func(ctx context.Context, unmarshal func(any) error) (any, error) {
		req := new(Req)
		if err := unmarshal(req); err != nil {
			return nil, err
		}
		return f(ctx, req)
	}
}
