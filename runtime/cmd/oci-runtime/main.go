// oci-runtime runs a container from an OCI bundle (a directory with config.json and a root file system) and does not stay.
//
//	oci-runtime [--root DIR] [--log FILE] [--log-format text|json] COMMAND
//
//	run [-d] [-b DIR] [--pid-file FILE] ID     create and start; wait for the end unless -d
//	create [-b DIR] [--pid-file FILE] ID       set up; start lets the workload run
//	start ID
//	state ID                                   as JSON
//	list
//	kill [-a] ID [SIGNAL]
//	stop [-t SECONDS] [--signal SIGNAL] ID     signal, wait, kill
//	delete [-f] ID
//	exec [-d] [-p FILE] [--cwd DIR] [-e K=V] [-u UID:GID] ID COMMAND
//	pause ID, resume ID                        freeze, let go on
//	update [-r FILE] [--memory N ...] ID       change limits
//	ps [-f json] ID                            its processes
//	features                                   what is supported, as JSON
//
// run, create and exec take --console-socket and --preserve-fds as well.
//
// With run -d the workload becomes the main process of the systemd unit (Type=forking) that called, in the unit's cgroup. A
// field of config.json that is not supported is an error that names it. State is in /run/proa/oci. Exit status: that of the
// workload, or 1 for an error. In a container, as /dev/init, it is process 1 in front of the workload (package reaper). PROA_OCI_PORTABLE=1 in the environment makes containers by a second process instead of by the
// assembly of package script.
//
//go:debug decoratemappings=0
package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/proa-os/proa/runtime/oci"
	"github.com/proa-os/proa/runtime/reaper"
	"github.com/proa-os/proa/runtime/run"
)

func main() {
	runtime.MemProfileRate = 0
	debug.SetGCPercent(-1) // a start allocates two megabytes, and every collection would cost more than it frees
	if run.IsStageTwo() {
		run.StageTwo() // returns only after having told the caller what is wrong
		os.Exit(1)
	}
	if reaper.Is(os.Args) {
		os.Exit(reaper.Main(os.Args))
	}
	os.Exit(oci.Main(context.Background(), os.Args[1:], oci.Streams{Out: os.Stdout, Err: os.Stderr}))
}
