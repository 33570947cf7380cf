// Command release is the release desk: it makes and maintains the signed repository from which machines update.
//
//	release init    --repo DIR --keys DIR [--threshold K] [--offline-keys N]
//	release stage   --repo DIR BUILD
//	release sign    --repo DIR --keys DIR
//	release publish --repo DIR --keys DIR [--channel NAME --version X.Y.Z [--halt]]
//	release verify  --repo DIR|URL --root FILE [--channel NAME]
//
// init makes keys (one file each, mode 0600) and an empty repository; it prints where the trust anchor is, the root.json that
// machines get as /etc/proa/update/root.json or in their image. stage takes the output folder of image-builder (root.img, boot.efi,
// release.json), refuses it if the parts contradict each other, makes the full payload and proves it. sign adds the
// signatures of the offline keys at hand; with a threshold above 1 it is run where the other keys are, too. publish
// signs if it can, makes what is staged current and lets the channel have a version; without --channel it renews the
// timestamp, which expires after a day. verify reads the repository as a machine does, payload included.
//
// --json prints the result as JSON, --quiet no progress. Exit code 0 means done, 1 an error, 2 a wrong command line.
//
// The keys of roles root and targets belong offline; snapshot, timestamp and plan are online. docs/releasing.md has the steps.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/proa-os/proa/update-engine/desk"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	switch {
	case errors.Is(err, desk.ErrUsage):
		fmt.Fprintln(os.Stderr, desk.Usage)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return desk.ErrUsage
	}
	if args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		fmt.Println(desk.Usage)
		return nil
	}
	o := desk.Options{Command: args[0], Now: time.Now, Out: os.Stdout, Err: os.Stderr}
	f := flag.NewFlagSet("release", flag.ContinueOnError)
	f.Usage = func() {}
	f.StringVar(&o.Repo, "repo", "", "")
	f.StringVar(&o.Keys, "keys", "", "")
	f.StringVar(&o.Root, "root", "", "")
	f.StringVar(&o.Channel, "channel", "", "")
	f.StringVar(&o.Version, "version", "", "")
	f.IntVar(&o.Threshold, "threshold", 1, "")
	f.IntVar(&o.OfflineKeys, "offline-keys", 0, "")
	f.BoolVar(&o.Halt, "halt", false, "")
	f.BoolVar(&o.JSON, "json", false, "")
	f.BoolVar(&o.Quiet, "quiet", false, "")
	if err := f.Parse(args[1:]); err != nil {
		return desk.ErrUsage
	}
	o.Args = f.Args()
	return desk.Run(ctx, o)
}
