// quadlet-generator makes systemd units of declared containers: *.container, *.volume, *.network, *.image and *.pod in
// /etc/containers/systemd, /run/containers/systemd and /usr/share/containers/systemd, in podman's vocabulary (podman-systemd.unit(5)).
//
//	quadlet-generator NORMAL EARLY LATE    as systemd calls it, at boot and at daemon-reload
//	quadlet-generator --dryrun [PATH...]   print the units
//	quadlet-generator --check [PATH...]    print what is wrong, exit status 1 if anything is
//
// An unknown key, a key that cannot mean anything here, or a value that makes no sense is an error with file, line and key in the
// journal. The unit exists all the same, fails when it is started and says the same there; all others work.
package main

import (
	"os"
	"runtime/debug"

	"github.com/proa-os/proa/runtime/generator"
)

func main() {
	debug.SetGCPercent(-1) // a few files, a few milliseconds
	os.Exit(generator.Machine().Main(os.Args[1:]))
}
