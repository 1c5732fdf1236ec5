//go:debug updatemaxprocs=0

// Command minictl-daemon is minictl with the daemon. The program minictl carries it, compressed, and becomes it when asked
// for the daemon.
package main

// For the setting above: the processors that the daemon may use are counted when it starts, not every second.

import (
	"context"
	"os"

	"github.com/minictl/minictl/cmd/internal/cli"
	"github.com/minictl/minictl/cmd/internal/config"
	"github.com/minictl/minictl/cmd/internal/daemon"
)

func main() {
	streams := cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Version: config.Version}
	os.Exit(cli.Main(context.Background(), os.Args[1:], streams, daemon.Command(config.Version), daemon.WitnessCommand(config.Version)))
}
