// containerctl pulls images and runs containers as systemd units.
//
//	containerctl pull [--tls-verify=false] IMAGE
//	containerctl run [-d] [--name NAME] --network host|none [flags] IMAGE [COMMAND]
//	containerctl ps [-a] | logs [-f] NAME | exec NAME COMMAND | stop NAME | start NAME | restart NAME | rm [-f] NAME
//	containerctl inspect NAME | images | rmi IMAGE | health [NAME]
//
// Every command explains itself with --help; those that print data do so as JSON with --json. A container in the background is
// the unit proa-<name>.service and starts with the machine. containerctl health is what the update agent asks before it
// declares a new release good. Exit status: 0 success, 1 error, 2 wrong usage; of exec and of run in the foreground that of
// the command. State is in /var/lib/proa/containers.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/proa-os/proa/runtime/ctl"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := ctl.Machine().Main(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}
