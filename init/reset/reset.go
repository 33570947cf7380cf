// Package reset is the factory reset of a running machine: it finds the machine's own disk and lets package state forget the state
// partition. Restarting the machine is the caller's part.
package reset

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/proa-os/proa/init/blockdev"
	"github.com/proa-os/proa/init/state"
	"github.com/proa-os/proa/internal/cmdline"
	"github.com/proa-os/proa/internal/disk"
)

// Machine resets the machine it runs on, and says so on out. Doing it twice is no error.
func Machine(out io.Writer) error {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	return find(string(line), disk.System(), func(d disk.Disk) error {
		fmt.Fprintf(out, "removing the state partition from the table of %s\n", d.Path)
		dev, err := blockdev.Open(d.Path)
		if err != nil {
			return err
		}
		return errors.Join(state.Reset(dev, d), dev.Close())
	})
}

// find calls forget with the disk that a kernel with this command line runs from. The machine may have grown its disk or
// reset it a moment ago, so that the kernel's partitions and the table differ: the table is what counts here.
func find(line string, scanner *disk.Scanner, forget func(disk.Disk) error) error {
	root, hashOffset, err := cmdline.Proa(cmdline.Parse(line))
	if err != nil {
		return fmt.Errorf("this machine was not booted from a Proa boot program: %w", err)
	}
	layout, err := scanner.Find(root, hashOffset)
	var stale *disk.StaleError
	if errors.As(err, &stale) {
		layout, err = stale.Layout, nil
	}
	if err != nil {
		return err
	}
	return forget(layout.Disk)
}
