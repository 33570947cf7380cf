// Bench-pull measures the CPU time of pulling an image by containerctl beside containerd and podman, interleaved, and says which of the bars
// are met.
//
//	bench-pull [--rounds 5] [--containerctl out/bin/containerctl] [--repo .] [--json]
//
// It needs root and the tree of the judges (image-builder tools judges). The exit code is 1 if a bar is missed.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/proa-os/proa/qemu-tests/bench/pull"
)

func main() {
	o := pull.Options{Progress: os.Stderr}
	flag.IntVar(&o.Rounds, "rounds", 5, "how many `rounds`, each of every puller once")
	flag.StringVar(&o.Containerctl, "containerctl", "out/bin/containerctl", "the `program` to measure")
	flag.StringVar(&o.Repo, "repo", ".", "`folder` of the checkout")
	asJSON := flag.Bool("json", false, "print JSON")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	met, err := run(ctx, o, *asJSON)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-pull:", err)
	}
	if err != nil || !met {
		os.Exit(1)
	}
}

func run(ctx context.Context, o pull.Options, asJSON bool) (bool, error) {
	if o.Rounds < 1 {
		return false, fmt.Errorf("--rounds %d: expected 1 or more", o.Rounds)
	}
	report, err := pull.Run(ctx, o)
	if err != nil {
		return false, err
	}
	if asJSON {
		return true, report.WriteJSON(os.Stdout)
	}
	return report.WriteText(os.Stdout), nil
}
