// Package rubbish removes trees that a workload, an image or the fetcher has made, whatever they look like.
//
// It stands behind the store and the volumes: what they have renamed out of sight goes here. os.RemoveAll holds a descriptor for each level, so a
// tree some hundred thousand levels deep would stay for ever. Here what lies in a directory moves up to the top before the directory goes: any
// depth takes a few descriptors. A workload with CAP_LINUX_IMMUTABLE can mark what it sees of the machine's, such as /etc/resolv.conf, immutable or
// append-only (chattr(1), FS_IOC_SETFLAGS in ioctl_iflags(2)); such marks are taken off. Links are not followed, devices not opened, and what is
// mounted in the tree stays: the error is EBUSY.
package rubbish

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Remove removes a tree. One that is not there is no error.
func Remove(top string) error {
	if err := remove(top); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", top, err)
	}
	return nil
}

func remove(top string) error {
	parent, err := openDir(unix.AT_FDCWD, filepath.Dir(top))
	if err != nil {
		return err
	}
	defer parent.Close()
	base := filepath.Base(top)
	if err := unlink(parent, base); err != unix.ENOTEMPTY {
		return err
	}
	dir, err := openFree(parent, base)
	if err != nil {
		return err
	}
	defer dir.Close()
	moved := 0
	err = eachName(dir, func(name string) error { return dissolve(dir, name, &moved) })
	if err != nil {
		return err
	}
	return unlink(parent, base)
}

// dissolve removes one name in the top directory; what lies in it moves up.
func dissolve(top *os.File, name string, moved *int) error {
	if err := unlink(top, name); err != unix.ENOTEMPTY {
		return err
	}
	dir, err := openFree(top, name)
	if err != nil {
		return err
	}
	defer dir.Close()
	err = eachName(dir, func(child string) error {
		if err := unlink(dir, child); err != unix.ENOTEMPTY {
			return err
		}
		err := error(unix.EEXIST)
		for ; err == unix.EEXIST; *moved++ {
			err = unix.Renameat2(int(dir.Fd()), child, int(top.Fd()), ".up-"+strconv.Itoa(*moved), unix.RENAME_NOREPLACE)
		}
		return err
	})
	if err != nil {
		return err
	}
	return unlink(top, name)
}

// eachName calls f, which takes the name away, until the directory is empty.
func eachName(dir *os.File, f func(string) error) error {
	for {
		if _, err := dir.Seek(0, io.SeekStart); err != nil {
			return err
		}
		names, err := dir.Readdirnames(1000)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for _, n := range names {
			if err := f(n); err != nil {
				return fmt.Errorf("%.100q: %w", n, err)
			}
		}
	}
}

// unlink removes what is no directory, or an empty one, or has gone. Of others the error is ENOTEMPTY.
func unlink(dir *os.File, name string) error {
	err := unlinkAny(dir, name)
	if err == unix.EPERM && free(dir, name) == nil {
		err = unlinkAny(dir, name)
	}
	switch err {
	case unix.ENOENT:
		return nil
	case unix.EEXIST: // rmdir(2) allows it
		return unix.ENOTEMPTY
	}
	return err
}

func unlinkAny(dir *os.File, name string) error {
	err := unix.Unlinkat(int(dir.Fd()), name, 0)
	if err == unix.EISDIR {
		err = unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR)
	}
	return err
}

const marks = 0x10 | 0x20 // FS_IMMUTABLE_FL, FS_APPEND_FL of linux/fs.h

// free takes the marks off a file or directory. It is looked at by O_PATH first: a device must not be opened for real.
func free(dir *os.File, name string) error {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return unix.EPERM
	}
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return unmark(f)
}

func unmark(f *os.File) error {
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil || flags&marks == 0 {
		return err
	}
	return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags&^marks))
}

// openFree opens a directory from which things can be taken, as far as marks go.
func openFree(dir *os.File, name string) (*os.File, error) {
	f, err := openDir(int(dir.Fd()), name)
	if err == nil {
		unmark(f) // a file system without marks has nothing to take off; of others the next step tells
	}
	return f, err
}

func openDir(at int, name string) (*os.File, error) {
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
