//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command minictl-init is pid 1 of containers made with --init; it is embedded in minictl, which unpacks it and binds it
// into them. It is a program of its own since the shim is ten times its size in memory.
package main

// For the settings above: a process as short as this need not read the list of all mounts to learn its share of the
// processors, nor ask again every second.

import (
	"os"

	"github.com/minictl/minictl/runtime/reaper"
)

func main() { os.Exit(reaper.Main(os.Args[1:])) }
