package boot

import (
	"errors"
	"fmt"
	"time"

	"github.com/proa-os/proa/internal/blockdev"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/disk"
)

// Disks appear when their drivers have found them, which for USB and SCSI takes a while after the module is loaded.
const (
	diskTimeout = 30 * time.Second
	diskPoll    = 50 * time.Millisecond
	diskPatient = 3 * time.Second // without a message
	usbPatience = 3 * time.Second // for another disk, when the slot is on USB
)

// A finder looks for the slot of one root image.
type finder struct {
	scanner    *disk.Scanner
	root       digest.SHA256
	hashOffset int64
	drivers    func() bool // loads those of devices that have appeared, and reports whether there were any
	note       func(format string, args ...any)
}

// wait finds the disk, once it is there and the kernel has read its partition table.
//
// The time counts from the last driver, whose loading may itself take long, and to the beginning of a look: a disk that
// appears during a slow one gets another.
func (f finder) wait() (*disk.Layout, error) {
	start := time.Now()
	var usb time.Time // when the slot was first found on USB
	patient := true
	for {
		if f.drivers() {
			start = time.Now()
		}
		waited := time.Since(start)
		layout, err := f.find()
		if err == nil {
			if !layout.Disk.USB || !usb.IsZero() && time.Since(usb) >= usbPatience {
				return layout, nil
			}
			if usb.IsZero() {
				usb = time.Now()
				f.note("%s is on USB: looking %d seconds for another disk with this slot", layout.Disk.Path, usbPatience/time.Second)
			}
			time.Sleep(diskPoll)
			continue
		}
		if waited > diskTimeout {
			return nil, fmt.Errorf("not there after %d seconds: %w", diskTimeout/time.Second, err)
		}
		if patient && waited > diskPatient {
			f.note("still waiting: %v", err)
			patient = false
		}
		time.Sleep(diskPoll)
	}
}

// find looks once. A damaged primary table, which the kernel refuses, is mended from the backup.
func (f finder) find() (*disk.Layout, error) {
	layout, err := f.scanner.Find(f.root, f.hashOffset)
	var stale *disk.StaleError
	if !errors.As(err, &stale) || stale.Layout.Disk.Table.PrimaryError == nil {
		return layout, err
	}
	d := stale.Layout.Disk
	f.note("partition table of %s is damaged: %v; writing it anew from its backup", d.Path, d.Table.PrimaryError)
	dev, err := blockdev.Open(d.Path)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(d.Table.Write(dev), dev.Reread(), dev.Close()); err != nil {
		return nil, err
	}
	return f.scanner.Find(f.root, f.hashOffset)
}
