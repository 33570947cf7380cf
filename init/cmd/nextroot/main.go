// Nextroot makes the root image of another slot ready for a soft reboot. The update agent's units run it, as root:
//
//	nextroot prepare    mount what /run/proa/nextroot names at /run/nextroot (proa-nextroot.service)
//	nextroot finish     give it /etc, when everything else is stopped (proa-soft-reboot.service)
//	nextroot undo       unmount it again
//
// It exits with 1 on an error, and 2 for wrong arguments. Package github.com/proa-os/proa/init/nextroot says how it works.
package main

import (
	"fmt"
	"os"

	"github.com/proa-os/proa/init/nextroot"
)

func main() {
	steps := map[string]func() error{"prepare": nextroot.Prepare, "finish": nextroot.Finish, "undo": nextroot.Undo}
	var step func() error
	if len(os.Args) == 2 {
		step = steps[os.Args[1]]
	}
	if step == nil {
		fmt.Fprintln(os.Stderr, "usage: nextroot prepare | finish | undo (the update agent does it: see updatectl)")
		os.Exit(2)
	}
	if err := step(); err != nil {
		fmt.Fprintln(os.Stderr, "nextroot:", err)
		os.Exit(1)
	}
}
