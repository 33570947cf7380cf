// Run boots a built release in QEMU with its serial console on the terminal.
//
//	run [--image out/1.0.0/disk.img] [--config FILE] [--keep] [--headless] [--memory MIB] [--cpus N] [--disk GIB] [--port N,...]
//
// --image is a disk image, its folder, or a folder of releases, of which the newest is booted. The machine works on a copy,
// in `run` beside the image; --keep goes on with the copy of the last run. It is provisioned with a new ssh key for core and root;
// --config lays a config, Ignition JSON or Butane YAML, over that. --port forwards ports of the machine to the host's loopback.
//
// Ctrl-A x ends the machine at once, Ctrl-A h lists the other keys. Whether KVM or TCG runs it is found out by trying;
// PROA_ACCEL=kvm or tcg decides instead.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/proa-os/proa/qemu-tests/terminal"
)

func main() {
	o := terminal.Options{In: os.Stdin, Out: os.Stdout, Messages: os.Stderr}
	flag.StringVar(&o.Image, "image", "out", "disk image, its `folder`, or a folder of releases")
	flag.StringVar(&o.Config, "config", "", "config `file`, Ignition JSON or Butane YAML, to lay over the default one")
	flag.BoolVar(&o.Keep, "keep", false, "go on with the disk of the last run")
	flag.BoolVar(&o.Headless, "headless", false, "leave the console to its log")
	flag.IntVar(&o.Memory, "memory", 1024, "memory in `MiB`")
	flag.IntVar(&o.CPUs, "cpus", 2, "`number` of CPUs")
	flag.Int64Var(&o.DiskGiB, "disk", 8, "disk size in `GiB`")
	flag.Func("port", "guest TCP `ports` to forward, separated by commas", func(s string) error {
		for _, f := range strings.Split(s, ",") {
			n, err := strconv.ParseUint(f, 10, 16)
			if err != nil || n == 0 {
				return fmt.Errorf("port %q: expected a number from 1 to 65535", f)
			}
			o.Ports = append(o.Ports, int(n))
		}
		return nil
	})
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := terminal.Run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
		os.Exit(1)
	}
}
