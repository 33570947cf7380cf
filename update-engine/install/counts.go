package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/proa-os/proa/internal/grubenv"
	"github.com/proa-os/proa/internal/slot"
)

// Counts reads which tries GRUB has taken from boot programs without renaming them: none on a machine without GRUB, and none
// under UEFI, where names say it. A block that is damaged says nothing to GRUB either.
func Counts(f Folder) (slot.Counts, error) {
	block, err := readBlock(f)
	if err != nil || block == nil {
		return nil, err
	}
	counts, err := grubenv.Parse(block)
	if err != nil {
		return nil, nil
	}
	return counts, nil
}

// readBlock returns GRUB's environment block, nil if there is none.
func readBlock(f Folder) ([]byte, error) {
	file, err := f.Open(grubenv.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what GRUB has counted: %w", err)
	}
	defer file.Close()
	block, err := io.ReadAll(io.NewSectionReader(file, 0, grubenv.Size+1))
	if err != nil {
		return nil, fmt.Errorf("read what GRUB has counted: %w", err)
	}
	return block, nil
}

// forget empties GRUB's environment block, for the release to be armed may have the name of one that has been tried before. A damaged
// block is mended by it, and one that is gone is made if GRUB starts this machine: GRUB tries nothing that it cannot count. A block
// with any byte out of place counts as damaged: what was torn in the middle may parse as nothing counted and still have no room for
// GRUB's next count. It comes before the commit point, so nothing is counted then.
func forget(f Folder, bios bool) error {
	block, err := readBlock(f)
	if err != nil || block == nil && !bios || bytes.Equal(block, grubenv.Empty()) {
		return err
	}
	file, err := f.Create(grubenv.File)
	if err != nil {
		return fmt.Errorf("forget what GRUB has counted: %w", err)
	}
	_, err = file.WriteAt(grubenv.Empty(), 0)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("forget what GRUB has counted: %w", err)
	}
	return nil
}
