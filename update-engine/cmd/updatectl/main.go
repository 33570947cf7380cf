// Command updatectl asks the update agent of this machine, and tells it what to do.
//
//	updatectl status            what runs, what happens, what is quarantined
//	updatectl why               in one line: why this machine is or is not updated
//	updatectl check             look for a newer release (root)
//	updatectl apply             install the channel's release and reboot into it (root)
//	updatectl history           what became of releases on this machine
//
// Options stand behind the command:
//
//	--json        print the agent's answer as JSON
//	--no-reboot   apply: install and arm the release; the next reboot tries it
//	--quiet       apply: no progress lines
//
// An update is tried: the machine boots the new release, checks its health, and keeps it or comes back by itself. A release that
// failed is quarantined and not taken again. The exit code is 0 if what was asked has been done or there is nothing
// to do, 1 on an error, 2 on a wrong command line.
//
// Files: /etc/proa/update/config.json says where releases come from. See also: journalctl -u update-engine -u proa-health.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/godbus/dbus/v5"

	"github.com/proa-os/proa/update-engine/bus"
	"github.com/proa-os/proa/update-engine/ctl"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	switch {
	case errors.Is(err, ctl.ErrUsage):
		fmt.Fprintln(os.Stderr, ctl.Usage)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "updatectl:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return ctl.ErrUsage
	}
	if args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		fmt.Println(ctl.Usage)
		return nil
	}
	o := ctl.Options{Command: args[0], Out: os.Stdout, Progress: os.Stderr}
	flags := flag.NewFlagSet("updatectl", flag.ContinueOnError)
	flags.SetOutput(os.Stderr)
	flags.Usage = func() {}
	flags.BoolVar(&o.JSON, "json", false, "")
	flags.BoolVar(&o.NoReboot, "no-reboot", false, "")
	flags.BoolVar(&o.Quiet, "quiet", false, "")
	if err := flags.Parse(args[1:]); err != nil || flags.NArg() > 0 {
		return ctl.ErrUsage
	}
	conn, err := dbus.ConnectSystemBus()
	if err != nil {
		return fmt.Errorf("connect to the system bus: %w", err)
	}
	defer conn.Close()
	return ctl.Run(ctx, bus.NewClient(conn), o)
}
