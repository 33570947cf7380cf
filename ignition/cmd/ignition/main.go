// Ignition provisions a machine from an Ignition config on its first boot, and helps people to write one.
//
//	ignition check CONFIG...             report everything wrong with configs
//	ignition plan CONFIG                 show what would be done, in order
//	ignition apply --root DIR CONFIG     do it, on a file tree
//	ignition drift                       show what differs now from what was provisioned
//	ignition reset [--keep PATH...]      let the next boot forget everything else and provision again
//	ignition -stage STAGE [flags]        run a stage of a first boot, as upstream's ignition does
//
// `ignition help` lists the commands, `ignition help COMMAND` is a command's manual page; `ignition help stage` has the flags, platforms,
// environment variables and files of a first boot.
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
	p := &program{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv}
	if err := p.run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "ignition:", err)
		stop()
		os.Exit(exitStatus(err))
	}
}
