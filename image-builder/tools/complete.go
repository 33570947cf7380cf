package tools

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// marker is in every tree that is whole; older image-builders made trees without.
const (
	marker     = ".complete"
	markerText = "complete\n" // an empty marker is what a power cut may leave
)

// complete reports whether a whole tree is in dir.
func complete(dir string) bool {
	b, err := os.ReadFile(filepath.Join(dir, marker))
	return err == nil && string(b) == markerText
}

// markComplete brings the tree in dir to the disk, then the marker (syncfs(2), fsync(2)). The order is what the marker means.
func markComplete(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	f, err := os.Create(filepath.Join(dir, marker))
	if err != nil {
		return err
	}
	_, err = f.WriteString(markerText)
	return errors.Join(err, f.Sync(), f.Close(), d.Sync())
}

// publish gives the whole tree in tmp the name dir. If a tree without a marker is there it takes tmp's name, in the same moment: programs
// may be running from it, and find the same files in the new one.
func publish(tmp, dir string) error {
	err := os.Rename(tmp, dir)
	if !errors.Is(err, os.ErrExist) || complete(dir) { // if complete, another image-builder was faster, with the same bytes
		return ignoreExist(err)
	}
	err = unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	// A file system that cannot exchange (NFS): for a moment there is no tree.
	old := tmp + ".old" // the sweep knows it, too
	defer os.RemoveAll(old)
	if err := os.Rename(dir, old); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return ignoreExist(os.Rename(tmp, dir))
}

func ignoreExist(err error) error {
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}
