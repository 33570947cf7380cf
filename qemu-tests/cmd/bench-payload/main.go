// Bench-payload measures payloads on pairs of real releases made from Debian's own packages, and xdelta3, zstd, casync and bsdiff beside them:
// bytes, CPU seconds, peak memory, and which of the bars are met.
//
//	bench-payload [--pairs openssl,zlib,...] [--no-peers] [--builder out/bin/image-builder] [--out out/bench] [--json]
//
// The first run builds the releases, which takes minutes; they stay in the cache. It exits with 1 on an
// error, and if a bar of a size or of memory is not met. --task is for the program itself.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/proa-os/proa/qemu-tests/bench/delta"
	"github.com/proa-os/proa/qemu-tests/bench/pair"
)

func main() {
	o := delta.Options{APT: "/etc/apt", Messages: os.Stderr}
	pairs := flag.String("pairs", "", "comma-separated `names`: "+strings.Join(pair.Names(), ", "))
	flag.BoolVar(&o.NoPeers, "no-peers", false, "measure payloads alone")
	flag.StringVar(&o.Builder, "builder", "out/bin/image-builder", "the `program` that builds releases")
	flag.StringVar(&o.Out, "out", "out/bench", "`folder` for what is made meanwhile")
	asJSON := flag.Bool("json", false, "print JSON")
	task := flag.String("task", "", "`JSON`: do one thing and say what was made")
	flag.Parse()
	if *pairs != "" {
		o.Pairs = strings.Split(*pairs, ",")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, *task, *asJSON)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-payload:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o delta.Options, task string, asJSON bool) error {
	if task != "" {
		return delta.Do(ctx, task, os.Stdout)
	}
	report, err := delta.Run(ctx, o)
	if err != nil {
		return err
	}
	write := report.WriteText
	if asJSON {
		write = report.WriteJSON
	}
	if err := write(os.Stdout); err != nil {
		return err
	}
	return report.Verdict()
}
