// containerctl pulls images and runs containers as systemd units.
//
//	containerctl pull [--tls-verify=false] IMAGE
//	containerctl run [-d | -it] [--rm] [--name NAME] [-p PORT] [flags] IMAGE [COMMAND]
//	containerctl ps [-a] | logs [-f] NAME | exec [-it] NAME COMMAND | stop | start | restart | kill | pause | wait | rm [-f] NAME
//	containerctl inspect | stats | top | cp | events | rename | health | images | rmi | tag | push | load | save | gc | login
//
// containerctl help lists them all, containerctl help COMMAND is a command's manual page, containerctl completion makes a shell
// complete them.
//
// Every command explains itself with --help; those that print data do so as JSON with --json. A container in the background is
// the unit proa-<name>.service and starts with the machine. containerctl health is what the update agent asks before it
// declares a new release good. Exit status: 0 success, 1 error, 2 wrong usage; of exec and of run in the foreground that of
// the command. State is in /var/lib/proa/containers.
//
//go:debug decoratemappings=0
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/proa-os/proa/runtime/ctl"
)

func main() {
	runtime.MemProfileRate = 0
	debug.SetGCPercent(400) // most commands end before they have allocated the 16 MB that the first collection then waits for
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := ctl.Machine().Main(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}
