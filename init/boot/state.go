package boot

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/init/rescue"
	"github.com/proa-os/proa/init/state"
	"github.com/proa-os/proa/internal/blockdev"
	"github.com/proa-os/proa/internal/disk"
)

const mib = 1 << 20

// prepareState returns the disk with a state partition that reaches its end: made if there is none or a wiped one, grown if the
// disk has.
func prepareState(f finder, layout *disk.Layout, tools state.Tools, console *rescue.Console) (*disk.Layout, error) {
	if layout.State != nil && blank(layout.State, console) {
		console.Step("forgetting the state partition on %s, which was wiped", layout.Disk.Path)
		if err := forgetState(layout); err != nil {
			return nil, err
		}
		var err error
		if layout, err = f.scanner.Find(f.root, f.hashOffset); err != nil {
			return nil, err
		}
	}
	if layout.State == nil {
		console.Step("making the state partition on %s", layout.Disk.Path)
		return createState(f, layout, tools)
	}
	return growPartition(f, layout, console), nil
}

// blank reports whether the state partition was wiped. If it cannot be read it was not, and mounting it will say what is wrong.
func blank(p *disk.Partition, console *rescue.Console) bool {
	dev, err := os.Open(p.Path)
	if err != nil {
		console.Note("%v", err)
		return false
	}
	defer dev.Close()
	is, err := state.Blank(dev, p.Size)
	if err != nil {
		console.Note("%s: %v", p.Path, err)
	}
	return is
}

// forgetState removes the state partition from the table and from the kernel.
func forgetState(layout *disk.Layout) error {
	dev, err := blockdev.Open(layout.Disk.Path)
	if err != nil {
		return err
	}
	err = state.Reset(dev, layout.Disk)
	if err == nil {
		err = dev.RemovePartition(layout.State.Number)
	}
	return errors.Join(err, dev.Close())
}

// createState makes the state partition and looks at the disk again.
func createState(f finder, layout *disk.Layout, tools state.Tools) (*disk.Layout, error) {
	var id [16]byte
	if _, err := unix.Getrandom(id[:], 0); err != nil {
		return nil, fmt.Errorf("make a partition GUID: %w", err)
	}
	table, part, err := state.Plan(layout.Disk, id)
	if err != nil {
		return nil, err
	}
	dev, err := blockdev.Open(layout.Disk.Path)
	if err != nil {
		return nil, err
	}
	format := func() error {
		path, err := f.scanner.Node(layout.Disk.Name, part.Number)
		if err != nil {
			return err
		}
		return tools.Format(path)
	}
	if err := errors.Join(state.Create(dev, table, part, format), dev.Close()); err != nil {
		return nil, err
	}
	if layout, err = f.scanner.Find(f.root, f.hashOffset); err != nil {
		return nil, err
	}
	if layout.State == nil {
		return nil, fmt.Errorf("partition table of %s: expected the new state partition, found none", layout.Disk.Path)
	}
	return layout, nil
}

// growPartition lets the partition table follow the disk, and the state partition if there is room behind it. A machine on which that does not work runs on with what it has.
func growPartition(f finder, layout *disk.Layout, console *rescue.Console) *disk.Layout {
	table, part, err := state.PlanGrowth(layout.Disk)
	if table == nil && err == nil {
		return layout
	}
	var grown *disk.Layout
	if err == nil {
		old := layout.State.Size
		if table.Size(part) != old {
			console.Step("growing the state partition on %s from %d to %d MiB", layout.Disk.Path, old/mib, table.Size(part)/mib)
		} else {
			console.Note("%s is larger than its partition table says: moving the backup to its end; state stays as it is, there is no room behind it", layout.Disk.Path)
		}
		grown, err = resize(f, layout, func(dev *blockdev.Disk) error { return state.Grow(dev, table, part, old) })
	}
	if err != nil {
		console.Note("the disk is larger than its partition table says, but the table cannot follow: %v", err)
		return layout
	}
	return grown
}

// mendBackup writes the partition table anew if its backup is damaged: the next power cut in a write of it may leave only that one.
// The boot does not depend on it.
func mendBackup(d disk.Disk, console *rescue.Console) {
	if d.Table.BackupError == nil {
		return
	}
	dev, err := blockdev.Open(d.Path)
	if err == nil {
		var mended bool
		if mended, err = state.Mend(dev, d); mended {
			console.Note("backup of the partition table of %s is damaged: %v; writing it anew", d.Path, d.Table.BackupError)
		}
		err = errors.Join(err, dev.Close())
	}
	if err != nil {
		console.Note("backup of the partition table of %s stays damaged: %v", d.Path, err)
	}
}

// resize changes the disk and looks at it again.
func resize(f finder, layout *disk.Layout, change func(*blockdev.Disk) error) (*disk.Layout, error) {
	dev, err := blockdev.Open(layout.Disk.Path)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(change(dev), dev.Close()); err != nil {
		return nil, err
	}
	return f.scanner.Find(f.root, f.hashOffset)
}

// mountState mounts state on /var, lets its file system fill the partition, goes on with the state that it points to if it does, forgets what
// it is asked to, and makes its directories.
func mountState(p *disk.Partition, drivers func() bool, tools state.Tools, console *rescue.Console) error {
	if err := tools.Mount(p.Path, varDir, console.Note); err != nil {
		return err
	}
	if err := growFileSystem(p, console); err != nil {
		console.Note("%v; state stays smaller than its partition", err)
	}
	if err := follow(drivers, tools, console); err != nil {
		return err
	}
	root, err := os.OpenRoot(varDir)
	if err != nil {
		return err
	}
	did, err := state.Forget(root)
	switch {
	case err != nil:
		console.Note("%v; the next boot tries again", err)
	case did:
		console.Step("forgot state, as was asked for, but for what is kept")
	}
	return errors.Join(state.MakeDirs(root, state.Dirs()), root.Close())
}

func growFileSystem(p *disk.Partition, console *rescue.Console) error {
	dev, err := os.Open(p.Path)
	if err != nil {
		return err
	}
	defer dev.Close()
	now, behind, err := state.Behind(dev, p.Size)
	if err != nil || !behind {
		return err
	}
	console.Step("growing the file system of state from %d to %d MiB", now/mib, p.Size/mib)
	return state.GrowFileSystem(varDir, p.Size)
}
