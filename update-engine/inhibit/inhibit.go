// Package inhibit reads who asks that this machine not be rebooted now, for package reboot to decide about.
//
// There are two ways to ask. logind's inhibitor locks for shutdown (systemd-inhibit(1)) last as long as the process that took them: a
// lock of mode block (or block-weak) blocks, one of mode delay only wants to be told and given a moment, which logind does itself when it
// is asked to reboot. And a file in /run/proa/inhibit.d blocks as long as it is there: for scripts, and for containers that have the folder
// mounted. Its name says who, its first line why.
//
// A machine whose logind does not answer has no locks of the first kind: the update of a machine in trouble must not wait for them.
package inhibit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/update-engine/reboot"
)

// Dir is the folder of files that inhibit.
const Dir = "/run/proa/inhibit.d"

const (
	logindName = "org.freedesktop.login1"
	logindPath = "/org/freedesktop/login1"
	manager    = "org.freedesktop.login1.Manager."

	maxWords = 200 // bytes of a reason that are shown
)

// A Lock is an entry of logind's ListInhibitors, a(ssssuu) in D-Bus.
type Lock struct {
	What, Who, Why, Mode string
	UID, PID             uint32
}

// Locks asks logind on the system bus. The error says that it did not answer.
func Locks(ctx context.Context, bus *dbus.Conn) ([]Lock, error) {
	var locks []Lock
	if err := bus.Object(logindName, logindPath).CallWithContext(ctx, manager+"ListInhibitors", 0).Store(&locks); err != nil {
		return nil, fmt.Errorf("ask logind who inhibits a reboot: %w", err)
	}
	return locks, nil
}

// OfLocks are the inhibitors among logind's locks.
func OfLocks(locks []Lock) []reboot.Inhibitor {
	var list []reboot.Inhibitor
	for _, l := range locks {
		if slices.Contains(strings.Split(l.What, ":"), "shutdown") {
			list = append(list, reboot.Inhibitor{Who: short(l.Who), Why: short(l.Why), Delay: l.Mode == "delay"})
		}
	}
	return list
}

// Files reads a folder; one that is missing is empty. Names that begin with a dot are passed over.
func Files(dir string) ([]reboot.Inhibitor, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read who inhibits a reboot: %w", err)
	}
	var list []reboot.Inhibitor
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		why, err := firstLine(filepath.Join(dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) { // taken away between listing and reading
			continue
		}
		// What cannot be read inhibits without a reason, for max_delay like the others.
		list = append(list, reboot.Inhibitor{Who: short(e.Name()), Why: why})
	}
	return list, nil
}

// firstLine reads a regular file. A container may put anything in its place at any moment: a link is not followed, and a pipe not waited for.
func firstLine(file string) (string, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return "", errors.Join(err, fmt.Errorf("%s: want a regular file", file))
	}
	b := make([]byte, maxWords)
	n, _ := f.Read(b)
	line, _, _ := strings.Cut(string(b[:n]), "\n")
	return short(line), nil
}

// short makes one printable line of what others write.
func short(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxWords {
		s = strings.ToValidUTF8(s[:maxWords], "") + "..."
	}
	return s
}
