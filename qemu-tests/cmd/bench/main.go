// Bench boots Proa and plain Debian in turn on the same virtual machine and prints where the time goes: seconds of firmware, loader,
// kernel, initramfs and userspace, the slowest units, and how the two compare from kernel start to multi-user.
//
//	bench [--image out/1.0.0] [--out out/bench] [--rounds N] [--against DIR] [--first-boot] [--json]
//
// --image is a built release or a folder of releases, of which the newest is measured. The first run makes the Debian machine, which takes
// minutes; it stays in the cache. --against measures another release instead of Debian, to see what a change has done. --first-boot
// measures only what provisioning adds to the first boot of a machine without config, by the way it goes on and by a soft reboot instead. --json prints everything that was measured instead of a
// table. BENCH_ROUNDS is another way to say --rounds.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/proa-os/proa/qemu-tests/bench"
)

func main() {
	o := bench.Options{APT: "/etc/apt", Messages: os.Stderr}
	rounds, err := strconv.Atoi(os.Getenv("BENCH_ROUNDS"))
	if err != nil {
		rounds = 3
	}
	flag.StringVar(&o.Image, "image", "out", "a release's `folder`, or a folder of releases")
	flag.StringVar(&o.Out, "out", "out/bench", "`folder` for the machines' consoles")
	flag.IntVar(&o.Rounds, "rounds", rounds, "`number` of measured boots of each machine")
	flag.StringVar(&o.Against, "against", "", "`folder` of another release to compare with instead of Debian")
	first := flag.Bool("first-boot", false, "measure only what provisioning adds to a first boot without config")
	asJSON := flag.Bool("json", false, "print JSON")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = measure(ctx, o, *first, *asJSON)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// measure measures and prints.
func measure(ctx context.Context, o bench.Options, first, asJSON bool) error {
	if first {
		boots, err := bench.MeasureFirstBoots(ctx, o)
		switch {
		case err != nil:
			return err
		case asJSON:
			return json.NewEncoder(os.Stdout).Encode(boots)
		}
		_, err = os.Stdout.WriteString(boots.Text())
		return err
	}
	report, err := bench.Run(ctx, o)
	switch {
	case err != nil:
		return err
	case asJSON:
		return report.WriteJSON(os.Stdout)
	}
	return report.WriteText(os.Stdout)
}
