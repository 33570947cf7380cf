package run

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// makeReadonly covers a path by a read-only view of itself; a path that does not exist needs none.
func makeReadonly(root int, p string) error {
	at, err := openInRoot(root, p, 0)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(at)
	view, err := unix.OpenTree(at, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return fmt.Errorf("clone: %w", err)
	}
	defer unix.Close(view)
	if err := setAttr(view, unix.MOUNT_ATTR_RDONLY, 0, true); err != nil {
		return fmt.Errorf("make read-only: %w", err)
	}
	return mountOn(view, at)
}

// maskAll covers files by the host's /dev/null and directories by one empty read-only file system. A path that does not exist
// needs no cover.
func maskAll(root int, paths []string) error {
	null, empty := -1, -1
	defer func() { closeAll([]int{null, empty}) }()
	for i, p := range paths {
		if slices.Contains(paths[:i], p) {
			continue // one cover is enough
		}
		at, err := openInRoot(root, p, 0)
		if err == unix.ENOENT || err == unix.ENOTDIR {
			continue
		}
		if err == nil {
			err = mask(at, &null, &empty)
			unix.Close(at)
		}
		if err != nil {
			return fmt.Errorf("linux.maskedPaths[%d] (%s): %w", i, p, err)
		}
	}
	return nil
}

// mask covers what at is. The empty directory is made when the first one is needed, and that one is cloned for the others: before
// Linux 6.15 a mount can be cloned only when it is attached.
func mask(at int, null, empty *int) error {
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return err
	}
	var err error
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if *empty < 0 {
			if *empty, err = newEmpty(); err != nil {
				return err
			}
			return mountOn(*empty, at)
		}
		return mountClone(*empty, at)
	}
	if *null < 0 {
		if *null, err = openNull(); err != nil {
			return err
		}
	}
	return mountClone(*null, at)
}

func mountClone(of, at int) error {
	fd, err := unix.OpenTree(of, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("clone cover: %w", err)
	}
	defer unix.Close(fd)
	return mountOn(fd, at)
}

func newEmpty() (int, error) {
	return newMount("tmpfs", "", []string{"nr_blocks=1", "nr_inodes=1"}, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}

func openNull() (int, error) {
	fd, err := unix.Open("/dev/null", unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && (st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3)) {
		err = errors.New("/dev/null of the host is not the null device")
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
