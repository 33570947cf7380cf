// Judge-runtime holds oci-runtime against the black-box suites of runc and crun, which lie in checkouts or git directories of this machine.
//
//	judge-runtime [--runc DIR] [--crun DIR] [--runtime out/bin/oci-runtime] [--known FILE] [--out out/judge] [--only WORD]
//
// It needs root and the programs that package judge names. The table of all tests goes to table.txt in the folder of --out, what the
// files of the suites said beside it. The exit code is 1 if a test fails that is not known to.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/proa-os/proa/qemu-tests/judge"
)

func main() {
	o := judge.Options{Progress: os.Stdout}
	flag.StringVar(&o.Runc, "runc", "", "`folder` or git directory of runc")
	flag.StringVar(&o.Crun, "crun", "", "`folder` or git directory of crun")
	flag.StringVar(&o.Runtime, "runtime", "out/bin/oci-runtime", "the `program` to judge")
	flag.StringVar(&o.Out, "out", "out/judge", "`folder` for the table and the suites' output")
	flag.StringVar(&o.Only, "only", "", "run files with this `word` in their name")
	known := flag.String("known", "qemu-tests/judge/known.txt", "`file` of what is known not to pass")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	good, err := run(ctx, o, *known)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "judge-runtime:", err)
	}
	if err != nil || !good {
		os.Exit(1)
	}
}

func run(ctx context.Context, o judge.Options, known string) (bool, error) {
	if o.Runc == "" && o.Crun == "" {
		return false, fmt.Errorf("want --runc or --crun: where a checkout of the suite lies")
	}
	var err error
	if o.Listing, err = judge.OpenListing(known); err != nil {
		return false, err
	}
	if err := os.MkdirAll(o.Out, 0o755); err != nil {
		return false, err
	}
	results, err := judge.Run(ctx, o)
	if err != nil {
		return false, err
	}
	table, err := os.Create(filepath.Join(o.Out, "table.txt"))
	if err != nil {
		return false, err
	}
	defer table.Close()
	if err := judge.WriteTable(table, results); err != nil {
		return false, err
	}
	return judge.Report(os.Stdout, results, o.Listing), table.Close()
}
