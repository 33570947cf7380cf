package repo

import "time"

// Disk is what a change does to the folder.
type Disk = disk

// On lets the desk write to a disk that misbehaves.
func (d *Desk) On(x Disk) { d.on = x }

// SetPushStall changes how long a registry may take nothing, and returns how to change it back.
func SetPushStall(d time.Duration) (restore func()) {
	old := pushStall
	pushStall = d
	return func() { pushStall = old }
}
