// Package switchroot leaves the initramfs for the root image.
//
// The initramfs is the kernel's rootfs, which cannot be unmounted or pivoted away
// (Documentation/filesystems/ramfs-rootfs-initramfs.rst): the new root is moved over it, and its files are deleted to give
// their memory back. Enter refuses to do that anywhere but in an initramfs.
package switchroot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// mounts returns the file systems taken along, by their path in both roots.
func mounts() []string { return []string{"/dev", "/proc", "/sys", "/run"} }

// Enter makes newRoot the root of this process and takes /dev, /proc, /sys and /run along. The old root is emptied. A file that
// cannot be deleted only costs memory: it is returned in leftovers.
func Enter(newRoot string) (leftovers, err error) {
	old, err := os.OpenRoot("/")
	if err != nil {
		return nil, fmt.Errorf("open initramfs: %w", err)
	}
	defer old.Close()
	var st unix.Statfs_t
	if err := unix.Statfs("/", &st); err != nil {
		return nil, fmt.Errorf("statfs /: %w", err)
	}
	if st.Type != unix.RAMFS_MAGIC && st.Type != unix.TMPFS_MAGIC {
		return nil, fmt.Errorf("leave initramfs: expected / to be one, found a file system of type %#x; nothing is deleted", st.Type)
	}
	for _, dir := range mounts() {
		if err := unix.Mount(dir, filepath.Join(newRoot, dir), "", unix.MS_MOVE, ""); err != nil {
			return nil, fmt.Errorf("move mount %s to %s: %w", dir, filepath.Join(newRoot, dir), err)
		}
	}
	if err := unix.Chdir(newRoot); err != nil {
		return nil, fmt.Errorf("change directory to %s: %w", newRoot, err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return nil, fmt.Errorf("move mount %s to /: %w", newRoot, err)
	}
	if err := unix.Chroot("."); err != nil {
		return nil, fmt.Errorf("change root to %s: %w", newRoot, err)
	}
	if err := unix.Chdir("/"); err != nil {
		return nil, fmt.Errorf("change directory to the new /: %w", err)
	}
	return empty(old), nil
}

// empty deletes what is in root, but nothing on another file system.
func empty(root *os.Root) error {
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	device, err := deviceOf(root, ".")
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		d, err := deviceOf(root, name)
		if err == nil && d == device {
			err = root.RemoveAll(name)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func deviceOf(root *os.Root, name string) (uint64, error) {
	fi, err := root.Lstat(name)
	if err != nil {
		return 0, err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, fmt.Errorf("stat %s: no device number", name)
	}
	return uint64(st.Dev), nil
}

// Exec replaces this process by program, with the arguments and environment the kernel gave to /init: what it did
// not understand of its command line is meant for the real one.
func Exec(program string) error {
	args := append([]string{program}, os.Args[1:]...)
	if err := unix.Exec(program, args, os.Environ()); err != nil {
		return fmt.Errorf("start %s: %w", strings.Join(args, " "), err)
	}
	return nil
}
