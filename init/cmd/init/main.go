// Init is the first program of a Proa machine: /init of the initramfs inside the boot program.
//
// The kernel starts it as process 1. It takes no options; all it is told is on the kernel command line, which is part of the
// signed boot program:
//
//	proa.roothash=HASH       dm-verity root hash of the root image, 64 hexadecimal digits
//	proa.hashoffset=BYTES    where its verity superblock is in the slot
//	MODULE.PARAMETER=VALUE   for the modules it loads, as modprobe(8) reads them
//
// Each must appear once. It finds the slot by these, puts dm-verity on it, mounts the root image, creates or mounts state and
// gives the machine to systemd. It prints every step before doing it. On any failure it says what was expected and what was
// found, on every console, and reboots after ten seconds, so that a try of this boot program is used up.
//
// Package github.com/proa-os/proa/init/boot is the list of steps.
package main

import (
	"fmt"
	"os"

	"github.com/proa-os/proa/init/boot"
	"github.com/proa-os/proa/init/rescue"
)

func main() {
	// What follows mounts over /, deletes and reboots.
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: this is the first program of a Proa machine, started by the kernel as process 1; nothing done")
		os.Exit(1)
	}
	console := rescue.NewConsole("/")
	rescue.Run(console, func() error { return boot.Run(console) })
}
