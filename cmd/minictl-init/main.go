// Command minictl-init is pid 1 of containers made with --init; it is embedded in minictl, which unpacks it and binds it
// into them. It is a program of its own since the shim is ten times its size in memory.
package main

import (
	"os"

	"github.com/minictl/minictl/runtime/reaper"
)

func main() { os.Exit(reaper.Main(os.Args[1:])) }
