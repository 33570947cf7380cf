// Bench-run measures `containerctl run --rm` end to end on a machine in QEMU, beside pinned crun with the same profile, and prints both.
//
//	bench-run [--image out/VERSION] [--rounds 50] [--out out/bench/run] [--json]
//
// The image is a built release; crun comes from manifests/peers.toml. The exit code is 1 if a bar is missed.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/proa-os/proa/qemu-tests/bench/oneshot"
)

func main() {
	o := oneshot.Options{APT: "/etc/apt", Messages: os.Stderr}
	flag.StringVar(&o.Image, "image", "out/0.1.0", "`folder` of a built release")
	flag.StringVar(&o.Out, "out", "out/bench/run", "`folder` for what is made meanwhile")
	flag.StringVar(&o.Manifests, "manifests", "manifests", "`folder` of peers.toml")
	flag.IntVar(&o.Rounds, "rounds", 50, "how many `rounds`, each of every command once")
	asJSON := flag.Bool("json", false, "print JSON")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	r, err := oneshot.Run(ctx, o)
	stop()
	met := true
	switch {
	case err != nil:
	case *asJSON:
		err = r.WriteJSON(os.Stdout)
	default:
		met = r.WriteText(os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-run:", err)
	}
	if err != nil || !met {
		os.Exit(1)
	}
}
