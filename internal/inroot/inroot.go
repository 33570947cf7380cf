// Package inroot opens paths of a root directory whose content is a stranger's, as a process would whose root it is.
//
// Invariants. Links are followed, absolute ones and ".." too, and stay inside: openat2(2) with RESOLVE_IN_ROOT. Magic links of proc, which
// lead anywhere, are refused. It is no guard against what is mounted inside.
package inroot

import (
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// ErrNotRegular says that a file is something else.
var ErrNotRegular = errors.New("is no regular file")

// Open opens a path below the directory root. resolve are further RESOLVE_ flags.
func Open(root int, name string, flags, resolve uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | resolve}
	for tries := 0; ; tries++ {
		fd, err := unix.Openat2(root, "."+path.Clean("/"+name), &how)
		// EAGAIN: something was renamed during the walk (openat2(2)).
		if (err == unix.EAGAIN || err == unix.EINTR) && tries < 50 {
			continue
		}
		return fd, err
	}
}

// Regular opens a regular file for reading. What is there instead, a pipe that nobody writes to or a device, is never opened.
func Regular(root int, name string) (*os.File, error) {
	at, err := Open(root, name, unix.O_PATH, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("%s %w", name, ErrNotRegular)
	}
	return os.Open(fmt.Sprintf("/proc/thread-self/fd/%d", at))
}
