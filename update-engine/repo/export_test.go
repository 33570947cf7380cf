package repo

// Disk is what a change does to the folder.
type Disk = disk

// On lets the desk write to a disk that misbehaves.
func (d *Desk) On(x Disk) { d.on = x }
