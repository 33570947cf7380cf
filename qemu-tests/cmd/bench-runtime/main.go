// Bench-runtime measures the start of a container by oci-runtime beside crun and runc, interleaved, and says which of the bars are met.
//
//	bench-runtime [--rounds 60] [--runtime out/bin/oci-runtime] [--pinned crun,runc] [--peers PROGRAM,...] [--out out/bench/runtime] [--json]
//
// It needs root. The pinned peers come from manifests/peers.toml, and are fetched once. Those of --peers, which are not installed, are
// named and left out. The exit code is 1 if a bar is missed.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/proa-os/proa/qemu-tests/bench/start"
)

func main() {
	o := start.Options{APT: "/etc/apt"}
	flag.IntVar(&o.Rounds, "rounds", 60, "how many `rounds`, each of every runtime once")
	flag.StringVar(&o.Runtime, "runtime", "out/bin/oci-runtime", "the `program` to measure")
	flag.StringVar(&o.Out, "out", "out/bench/runtime", "`folder` for what is made meanwhile")
	flag.StringVar(&o.Manifests, "manifests", "manifests", "`folder` of peers.toml")
	pinned := flag.String("pinned", "crun,runc", "comma-separated `names` of peers in peers.toml")
	peers := flag.String("peers", "", "comma-separated `programs` of this machine to measure as well")
	asJSON := flag.Bool("json", false, "print JSON")
	flag.Parse()
	comma := func(c rune) bool { return c == ',' }
	o.Pinned, o.Peers = strings.FieldsFunc(*pinned, comma), strings.FieldsFunc(*peers, comma)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	met, err := run(ctx, o, *asJSON)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-runtime:", err)
	}
	if err != nil || !met {
		os.Exit(1)
	}
}

func run(ctx context.Context, o start.Options, asJSON bool) (bool, error) {
	if err := start.Isolate(); err != nil {
		return false, err
	}
	report, err := start.Run(ctx, o)
	if err != nil {
		return false, err
	}
	if asJSON {
		return true, report.WriteJSON(os.Stdout)
	}
	return report.WriteText(os.Stdout), nil
}
