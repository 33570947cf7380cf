package run

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Protect makes sure that this program cannot be written through /proc/<pid>/exe by who has become root in a container that
// this process, or a child of it, has entered. On a file system without writing, as the machine's root image is, there is
// nothing to do. Elsewhere it executes itself again through a read-only mount of its own file, which is attached nowhere and
// so can be changed by nobody.
func Protect() error {
	self, err := unix.Open("/proc/self/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open own program: %w", err)
	}
	defer unix.Close(self)
	if readOnly(self) {
		return nil
	}
	view, err := unix.OpenTree(self, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("make a read-only view of own program (needs root): %w", err)
	}
	defer unix.Close(view)
	if err := setAttr(view, unix.MOUNT_ATTR_RDONLY, 0, false); err != nil {
		return fmt.Errorf("make a read-only view of own program: %w", err)
	}
	if !readOnly(view) {
		return fmt.Errorf("make a read-only view of own program: it can still be written")
	}
	err = execveat(view, os.Args, os.Environ())
	return fmt.Errorf("execute the read-only view of own program: %w", err)
}

func readOnly(fd int) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && st.Flags&unix.ST_RDONLY != 0
}
