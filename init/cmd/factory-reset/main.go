// Factory-reset makes a Proa machine forget everything it has learned, and restarts it.
//
//	systemctl start factory-reset.target     what people type
//	/usr/lib/proa/factory-reset --yes        what it runs, as root
//
// It removes the entry of the state partition from the partition table, both copies of it. That is the whole reset: the next boot
// finds a disk like one that was never booted and makes fresh state, with new ssh host keys and a new machine ID, and the
// machine is provisioned again. The operating system and its version stay. A power cut at any moment leaves either the old
// state or none. Where a config has put state on a file system of its own at /var, that one is forgotten too; other disks are not.
//
// Settings, keys, logs, containers and their data are gone with it. They are not overwritten, though: on a disk that leaves the
// house, erase them (blkdiscard, or the drive's own command).
//
// Exit codes: 1 if the machine was not reset, 2 for wrong options. Package github.com/proa-os/proa/init/state has the format.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/init/reset"
)

const usage = `usage: factory-reset --yes

Removes all state of this machine (settings, keys, logs, containers and their data)
and restarts it; it comes up as after its first installation, with the same version.
The usual way to run it is: systemctl start factory-reset.target

  --yes    really do it
`

func main() { os.Exit(run(os.Args[1:], os.Geteuid(), os.Stdout, os.Stderr)) }

func run(args []string, uid int, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("factory-reset", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	yes := flags.Bool("yes", false, "")
	switch err := flags.Parse(args); {
	case err == flag.ErrHelp:
		fmt.Fprint(stdout, usage)
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "factory-reset: %v\n%s", err, usage)
		return 2
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "factory-reset: unexpected argument %q\n%s", flags.Arg(0), usage)
		return 2
	case !*yes:
		fmt.Fprintf(stderr, "factory-reset: this removes everything the machine has stored; nothing done, --yes is missing\n%s", usage)
		return 2
	case uid != 0:
		fmt.Fprintln(stderr, "factory-reset: only root may do this; nothing done: try `run0 systemctl start factory-reset.target`")
		return 1
	}
	if err := reset.Machine(stdout); err != nil {
		fmt.Fprintf(stderr, "factory-reset: %v\n", err)
		return 1
	}
	argv := slices.Concat([]string{"/usr/bin/systemd-run"}, later(), []string{"/usr/bin/systemctl"}, reboot())
	err := unix.Exec(argv[0], argv, os.Environ())
	fmt.Fprintf(stderr, "factory-reset: state is forgotten, but %s does not start: %v; restart the machine\n", argv[0], err)
	return 1
}

// later are the options of systemd-run that start a command in a moment, so that whoever started the target is told that it worked.
func later() []string {
	return []string{"--quiet", "--on-active=1s", "--timer-property=AccuracySec=100ms"}
}

// reboot are the words for systemctl. The order goes to the service manager itself, as the update agent's does: `systemctl reboot` asks
// logind, which refuses while any program inhibits a shutdown, and this machine must not run on without its state.
func reboot() []string {
	return []string{"start", "--no-block", "--job-mode=replace-irreversibly", "reboot.target"}
}
