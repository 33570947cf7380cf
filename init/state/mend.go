package state

import (
	"fmt"
	"io"
	"slices"

	"github.com/proa-os/proa/internal/disk"
)

// Mend writes the table of d, as it is, over a damaged backup. One whose primary is damaged is the business of whoever finds the
// disk: it is the backup that counts then, and the kernel must read the table again.
//
// A disk that has grown is left alone: the table that follows it (PlanGrowth) mends the backup too, and one written before it would
// hide that the disk has grown.
func Mend(w io.WriterAt, d disk.Disk) (mended bool, err error) {
	table := *d.Table
	table.Partitions = slices.Clone(d.Table.Partitions)
	if err := table.GrowTo(d.Size); err != nil {
		return false, fmt.Errorf("mend the backup: %w", err)
	}
	if d.Table.BackupError == nil || table.Sectors != d.Table.Sectors {
		return false, nil
	}
	return true, table.Write(w)
}
