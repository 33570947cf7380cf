// Command updatectl asks the update agent of this machine, and tells it what to do.
//
//	updatectl status                 what runs, what happens, what is held back
//	updatectl why                    in one line: why this machine is or is not updated
//	updatectl check                  look for a newer release (root)
//	updatectl apply                  install the channel's release and reboot into it (root)
//	updatectl rollback [VERSION]     go back to the release in the other slot and stay there (root); resume ends that
//	updatectl hold [REASON]          take no release, for good or --until a time (root); unhold ends that
//	updatectl pin [VERSION]          take no release but this one (root); unpin ends that
//	updatectl quarantine list|clear  releases that failed here, and forgiving one
//	updatectl history                what became of releases on this machine, and who ordered what
//	updatectl metrics                the same in numbers, for Prometheus
//	updatectl completion SHELL       completion for bash, zsh or fish
//	updatectl help [COMMAND]         a manual page for each of these
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
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/proa-os/proa/internal/command"
	"github.com/proa-os/proa/update-engine/bus"
	"github.com/proa-os/proa/update-engine/ctl"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	t := ctl.Terminal{Connect: connect, Out: os.Stdout, Progress: os.Stderr, Now: time.Now}
	err := ctl.Program(t).Run(ctx, os.Stdout, os.Args[1:])
	stop()
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "updatectl:", err)
	if wrong := (*command.WrongUsage)(nil); errors.As(err, &wrong) {
		os.Exit(2)
	}
	os.Exit(1)
}

// connect uses the system bus until the program ends.
func connect() (ctl.Agent, error) {
	conn, err := dbus.ConnectSystemBus()
	if err != nil {
		return nil, fmt.Errorf("connect to the system bus: %w", err)
	}
	return bus.NewClient(conn), nil
}
