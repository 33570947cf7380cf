package run

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Protect makes sure that this program cannot be written through /proc/<pid>/exe by who has become root in a container that
// this process, or a child of it, has entered. On a file system without writing, as the machine's root image is, there is
// nothing to do. Elsewhere it executes itself again through a read-only mount of its own file, which is attached nowhere and
// so can be changed by nobody; or, if its file belongs to another mount namespace, from a sealed copy in memory.
func Protect() error {
	self, err := unix.Open("/proc/self/exe", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open own program: %w", err)
	}
	defer unix.Close(self)
	if fixed(self) {
		return nil
	}
	view, err := readOnlyView(self)
	if errors.Is(err, unix.EINVAL) {
		view, err = sealedCopy(self)
	}
	if err != nil {
		return fmt.Errorf("protect own program from containers (needs root): %w", err)
	}
	defer unix.Close(view)
	if !fixed(view) {
		return errors.New("protect own program from containers: it can still be written")
	}
	err = execveat(view, os.Args, os.Environ())
	return fmt.Errorf("execute own program again: %w", err)
}

const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// fixed reports whether nobody can write the file behind fd.
func fixed(fd int) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) == nil && st.Flags&unix.ST_RDONLY != 0 {
		return true
	}
	has, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	return err == nil && has&seals == seals
}

func readOnlyView(self int) (int, error) {
	view, err := unix.OpenTree(self, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return -1, fmt.Errorf("clone mount: %w", err)
	}
	if err := setAttr(view, unix.MOUNT_ATTR_RDONLY, 0, false); err != nil {
		unix.Close(view)
		return -1, fmt.Errorf("make mount read-only: %w", err)
	}
	return view, nil
}

func sealedCopy(self int) (int, error) {
	const name = "oci-runtime"
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return -1, fmt.Errorf("copy: %w", err)
	}
	for {
		n, err := unix.Sendfile(fd, self, nil, 1<<30)
		if err == nil && n == 0 {
			break
		}
		if err != nil && err != unix.EINTR {
			unix.Close(fd)
			return -1, fmt.Errorf("copy: %w", err)
		}
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("seal: %w", err)
	}
	return fd, nil
}
