// Bench-gap measures how long a machine in QEMU is away in an update, by a soft and by a full reboot, and prints both.
//
//	bench-gap [--out out/bench] [--json]
//
// It builds three releases that differ in their version only. It measures and never fails because of a number.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/proa-os/proa/qemu-tests/bench/gap"
)

func main() {
	o := gap.Options{Messages: os.Stderr}
	flag.StringVar(&o.Out, "out", "out/bench", "`folder` for releases and the machine's console")
	asJSON := flag.Bool("json", false, "print JSON")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	r, err := gap.Run(ctx, o)
	stop()
	switch {
	case err != nil:
	case *asJSON:
		err = json.NewEncoder(os.Stdout).Encode(r)
	default:
		err = r.WriteText(os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-gap:", err)
		os.Exit(1)
	}
}
