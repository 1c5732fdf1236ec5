//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command minictl-shim is started by containerd, one per container; it is
// embedded in minictl, which unpacks it.
package main

// For the settings above: a process as short as this need not read the list of all mounts to learn its share of the
// processors, nor ask again every second.

import "github.com/minictl/minictl/runtime/shim"

func main() { shim.Main() }
