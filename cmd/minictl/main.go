//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// minictl runs containers on a handful of machines that reach each other by name: the command line and, as `minictl
// daemon`, the daemon.
package main

// For the settings above: a process as short as this need not read the list of all mounts to learn its share of the
// processors, nor ask again every second.

import (
	"context"
	"os"

	"github.com/minictl/minictl/cmd/internal/cli"
	"github.com/minictl/minictl/cmd/internal/inside"
	"github.com/minictl/minictl/cmd/internal/version"
)

func main() {
	streams := cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Version: version.Version}
	os.Exit(cli.Main(context.Background(), os.Args[1:], streams, inside.Commands(os.Args)...))
}
