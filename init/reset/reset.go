// Package reset is the factory reset of a running machine: it finds the machine's own disk and lets package state forget the state
// partition. Restarting the machine is the caller's part.
//
// A config may have put state on a file system of its own. That one is asked first, durably, to be forgotten: a power cut before the partition
// goes leaves a machine whose next boot carries out the request, one after it a machine that knows nothing of that file system until it is
// provisioned again, and then empties it (ignition/relocate). Other disks of the config are not state, and stay as they are.
package reset

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/init/state"
	"github.com/proa-os/proa/internal/blockdev"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/disk"
)

// Machine resets the machine it runs on, and says so on out. Doing it twice is no error.
func Machine(out io.Writer) error {
	device, err := disk.Root()
	if err != nil {
		return err
	}
	scanner := disk.System()
	root, hashOffset, err := scanner.Running(device)
	if err != nil {
		return err
	}
	return find(root, hashOffset, scanner, func(layout *disk.Layout) error {
		d := layout.Disk
		undo, err := forgetElsewhere(out, layout)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "removing the state partition from the table of %s\n", d.Path)
		dev, err := blockdev.Open(d.Path)
		if err != nil {
			return err
		}
		if err := state.Reset(dev, d); err != nil {
			return errors.Join(err, dev.Close(), undo())
		}
		return dev.Close()
	})
}

// stateDir is where the running system has its state.
const stateDir = "/var"

// forgetElsewhere asks the state that this machine runs with to be forgotten, unless that is the partition of its own disk. undo takes the
// request back.
func forgetElsewhere(out io.Writer, layout *disk.Layout) (undo func() error, err error) {
	none := func() error { return nil }
	var st unix.Stat_t
	if err := unix.Stat(stateDir, &st); err != nil {
		return none, fmt.Errorf("look for state: %s: %w", stateDir, err)
	}
	if own("/sys", layout, unix.Major(st.Dev), unix.Minor(st.Dev)) {
		return none, nil
	}
	root, err := os.OpenRoot(stateDir)
	if err != nil {
		return none, fmt.Errorf("look for state: %w", err)
	}
	fmt.Fprintf(out, "asking the file system at %s, which is not on %s, to be forgotten\n", stateDir, layout.Disk.Path)
	if err := state.Request(root); err != nil {
		return none, errors.Join(err, root.Close())
	}
	return func() error { return errors.Join(root.Remove(state.ResetRequest), root.Close()) }, nil
}

// own reports whether a device is the state partition of the disk.
func own(sys string, layout *disk.Layout, major, minor uint32) bool {
	if layout.State == nil {
		return true // forgotten a moment ago
	}
	read := func(name string) string {
		b, err := os.ReadFile(sys + name) // with its "..", which is the directory above what a link points to
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	partition := fmt.Sprintf("/dev/block/%d:%d", major, minor)
	whole := read("/class/block/" + layout.Disk.Name + "/dev")
	return whole != "" && whole == read(partition+"/../dev") && read(partition+"/partition") == strconv.Itoa(layout.State.Number)
}

// find calls forget with the layout of the disk that a machine with this root image runs from. The machine may have grown its disk or
// reset it a moment ago, so that the kernel's partitions and the table differ: the table is what counts here.
func find(root digest.SHA256, hashOffset int64, scanner *disk.Scanner, forget func(*disk.Layout) error) error {
	layout, err := scanner.Find(root, hashOffset)
	var stale *disk.StaleError
	if errors.As(err, &stale) {
		layout, err = stale.Layout, nil
	}
	if err != nil {
		return err
	}
	return forget(layout)
}
