package install

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/durable"
)

// OpenDevice opens a partition, or a file that stands for one, for writing. A block device that is in use, by a mount or by
// dm-verity, is refused by the kernel (O_EXCL), so a wrong choice cannot hurt the running slot.
func OpenDevice(path string) (File, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open slot: %w", err)
	}
	flags := os.O_RDWR
	if fi.Mode()&os.ModeDevice != 0 {
		flags |= os.O_EXCL
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return nil, fmt.Errorf("open slot: %w", err)
	}
	return &osFile{f}, nil
}

// osFile is a File of the operating system.
type osFile struct{ *os.File }

// Sync writes everything out and drops the page cache, so that the next read is the disk's answer.
func (f *osFile) Sync() error {
	if err := f.File.Sync(); err != nil {
		return err
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("drop page cache of %s: %w", f.Name(), err)
	}
	return nil
}

// Size is found by seeking, which works for block devices too.
func (f *osFile) Size() (int64, error) { return f.Seek(0, io.SeekEnd) }

// Dir is a Folder in a directory.
type Dir struct{ root *os.Root }

// OpenDir opens a directory, usually EFI/Linux of a mounted ESP. Close it before unmounting.
func OpenDir(path string) (*Dir, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open boot programs: %w", err)
	}
	return &Dir{root}, nil
}

// Close closes the directory.
func (d *Dir) Close() error { return d.root.Close() }

// List implements Folder.
func (d *Dir) List() ([]string, error) {
	f, err := d.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// Open implements Folder.
func (d *Dir) Open(name string) (File, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, err
	}
	return &osFile{f}, nil
}

// Create implements Folder.
func (d *Dir) Create(name string) (File, error) {
	f, err := d.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, err
	}
	return &osFile{f}, nil
}

// Edit implements Folder.
func (d *Dir) Edit(name string) (File, error) {
	f, err := d.root.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &osFile{f}, nil
}

// Rename implements Folder. FAT has no atomic rename. In this order, which MS_DIRSYNC keeps, a cut leaves: the new name of an empty
// file beside the old one, which no loader looks at; both names of the whole file; the new name alone.
func (d *Dir) Rename(oldName, newName string) error { return durable.Rename(d.root, oldName, newName) }

// Remove implements Folder.
func (d *Dir) Remove(name string) error { return durable.Remove(d.root, name) }

// Free is the room in bytes on the file system of the directory. A file system that is read-only is an error that wraps syscall.EROFS.
func (d *Dir) Free() (int64, error) {
	f, err := d.root.Open(".")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", d.root.Name(), err)
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return 0, fmt.Errorf("%s: %w", d.root.Name(), unix.EROFS)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// MountedESP is the ESP, mounted for the time of one job.
type MountedESP struct {
	*Dir
	at string
}

// MountESP mounts the ESP at a folder of its own, in the mount namespace of the service, and opens its EFI/Linux.
func MountESP(device, at string) (*MountedESP, error) {
	if err := os.MkdirAll(at, 0o755); err != nil {
		return nil, fmt.Errorf("mount ESP: %w", err)
	}
	if err := unix.Mount(device, at, "vfat", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_DIRSYNC, "umask=0077"); err != nil {
		return nil, fmt.Errorf("mount ESP %s at %s: %w; the machine runs on without it, but cannot be updated: repair it from another system (fsck.fat -a)", device, at, err)
	}
	d, err := OpenDir(at + "/EFI/Linux")
	if err != nil {
		return nil, errors.Join(err, unix.Unmount(at, unix.MNT_DETACH))
	}
	return &MountedESP{d, at}, nil
}

// Close unmounts, which writes out what a sync has not.
func (m *MountedESP) Close() error {
	err := m.Dir.Close()
	if e := unix.Unmount(m.at, 0); e != nil {
		err = errors.Join(err, fmt.Errorf("unmount ESP %s: %w", m.at, e))
	}
	return err
}
