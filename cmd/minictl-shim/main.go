// Command minictl-shim is started by containerd, one per container; it is
// embedded in minictl, which unpacks it.
package main

import "github.com/minictl/minictl/runtime/shim"

func main() { shim.Main() }
