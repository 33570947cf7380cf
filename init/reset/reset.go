// Package reset is the factory reset of a running machine: it finds the machine's own disk and lets package state forget the state
// partition. Restarting the machine is the caller's part.
package reset

import (
	"errors"
	"fmt"
	"io"

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
	return find(root, hashOffset, scanner, func(d disk.Disk) error {
		fmt.Fprintf(out, "removing the state partition from the table of %s\n", d.Path)
		dev, err := blockdev.Open(d.Path)
		if err != nil {
			return err
		}
		return errors.Join(state.Reset(dev, d), dev.Close())
	})
}

// find calls forget with the disk that a machine with this root image runs from. The machine may have grown its disk or
// reset it a moment ago, so that the kernel's partitions and the table differ: the table is what counts here.
func find(root digest.SHA256, hashOffset int64, scanner *disk.Scanner, forget func(disk.Disk) error) error {
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
