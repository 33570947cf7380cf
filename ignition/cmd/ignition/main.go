// Ignition provisions a machine from an Ignition config on its first boot, and helps people to write one.
//
//	ignition check CONFIG...             report everything wrong with configs
//	ignition plan CONFIG                 show what would be done, in order
//	ignition apply [-root DIR] CONFIG    do it, on a file tree
//	ignition drift [-root DIR]           show what differs now from what was provisioned
//	ignition reset [-keep PATH...]       let the next boot forget everything else and provision again
//	ignition -stage STAGE [flags]        run a stage of a first boot, as upstream's ignition does
//	ignition finish                      mark the machine as provisioned
//	ignition show-failure                put the error of the last stage on every console
//
// `ignition -help` describes flags, files, environment and exit status.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse(os.Args[1:])
	if err == nil {
		o.stdout, o.stderr = os.Stdout, os.Stderr
		err = run(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "ignition:", err)
		stop()
		os.Exit(exitStatus(err))
	}
}
