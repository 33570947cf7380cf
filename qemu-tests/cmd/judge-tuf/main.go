// Judge-tuf holds tuf-client, package update-engine/tuf as a plain TUF client, against the TUF project's conformance suite
// (theupdateframework/tuf-conformance), which lies in a checkout or git directory of this machine.
//
//	judge-tuf --suite DIR [--client out/bin/tuf-client] [--known FILE] [--out out/judge]
//
// Python and what the suite imports are those of the tools tree and of the judges' tree (PROA_TOOLS, PROA_JUDGES_TREE). What the suite
// says goes to tuf.log in the folder of --out. The exit code is 1 if a test fails that is not known to.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/proa-os/proa/internal/tooltree"
	"github.com/proa-os/proa/qemu-tests/judge"
)

func main() {
	o := judge.TUFOptions{Progress: os.Stdout}
	flag.StringVar(&o.Suite, "suite", "", "`folder` or git directory of tuf-conformance")
	flag.StringVar(&o.Client, "client", "out/bin/tuf-client", "the `program` to judge")
	flag.StringVar(&o.Out, "out", "out/judge", "`folder` for the suite's output")
	known := flag.String("known", "qemu-tests/judge/known.txt", "`file` of what is known not to pass")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	good, err := run(ctx, o, *known)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "judge-tuf:", err)
	}
	if err != nil || !good {
		os.Exit(1)
	}
}

func run(ctx context.Context, o judge.TUFOptions, known string) (bool, error) {
	if o.Suite == "" {
		return false, errors.New("want --suite: where a checkout of theupdateframework/tuf-conformance lies")
	}
	var err error
	if o.Listing, err = judge.OpenListing(known); err != nil {
		return false, err
	}
	if o.Tools, err = tooltree.Open(); err != nil {
		return false, err
	}
	if o.Judges, err = tooltree.OpenJudges(); err != nil {
		return false, err
	}
	if err := os.MkdirAll(o.Out, 0o755); err != nil {
		return false, err
	}
	results, err := judge.RunTUF(ctx, o)
	if err != nil {
		return false, err
	}
	return judge.Report(os.Stdout, results, o.Listing), nil
}
