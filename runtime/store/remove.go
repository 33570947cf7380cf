package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// removeAll removes a tree that a workload, a layer or the fetcher has made. os.RemoveAll holds a descriptor for each level, so
// a tree some hundred thousand levels deep would stay for ever, and with it the error of every change of the store. Here
// what lies in a directory moves up to the top before the directory goes: any depth takes two descriptors. Links are not
// followed.
func removeAll(top string) error {
	if err := os.Remove(top); err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	dir, err := openDir(unix.AT_FDCWD, top)
	if err != nil {
		return fmt.Errorf("remove %s: %w", top, err)
	}
	defer dir.Close()
	moved := 0
	err = eachName(dir, func(name string) error {
		if gone(dir, name) {
			return nil
		}
		sub, err := openDir(int(dir.Fd()), name)
		if err != nil {
			return err
		}
		defer sub.Close()
		err = eachName(sub, func(child string) error {
			if gone(sub, child) {
				return nil
			}
			err := error(unix.EEXIST)
			for ; err == unix.EEXIST; moved++ {
				err = unix.Renameat2(int(sub.Fd()), child, int(dir.Fd()), ".up-"+strconv.Itoa(moved), unix.RENAME_NOREPLACE)
			}
			return err
		})
		if err != nil {
			return err
		}
		return unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR)
	})
	if err == nil {
		err = os.Remove(top)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", top, err)
	}
	return nil
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

// gone removes what is no directory, or an empty one.
func gone(dir *os.File, name string) bool {
	err := unix.Unlinkat(int(dir.Fd()), name, 0)
	if err == unix.EISDIR || err == unix.EPERM {
		err = unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR)
	}
	return err == nil || err == unix.ENOENT
}

func openDir(at int, name string) (*os.File, error) {
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
