// Package durable replaces, renames and removes files so that a power cut leaves the old state or the new one.
//
// Caveats first. One writer at a time for a name: the temporary file has a fixed name beside it, so that what a
// power cut leaves behind is overwritten by the next call and never piles up. An error from the last step (the sync
// of the directory) means that the change is visible but may not survive a power cut; every earlier error means that
// nothing changed. Hard links to the old file keep the old content. Lock-free readers always see one whole file.
//
// The order of system calls of a replacement, on which everything above rests (rename(2), fsync(2)):
//
//	openat(.name.new, O_CREAT|O_TRUNC)   what an earlier cut left there is lost
//	fchmod, write                        the mode does not depend on the umask
//	fsync(file)                          content before name: a name never shows a torn file
//	close
//	renameat(.name.new, name)            the one atomic step
//	fsync(directory)                     now it lasts
//
// It stands below the update agent (its state, the trusted metadata) and whoever else keeps a small file for good.
// Names are relative to an *os.Root, so a hostile symbolic link leads nowhere.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// WriteFile replaces the file name below root by data with the permission bits of mode, durably.
func WriteFile(root *os.Root, name string, data []byte, mode fs.FileMode) error {
	return replace(rootDir{root}, name, data, mode)
}

// WritePath is WriteFile for a path whose directory is trusted.
func WritePath(name string, data []byte, mode fs.FileMode) error {
	root, err := os.OpenRoot(filepath.Dir(name))
	if err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	defer root.Close()
	return WriteFile(root, filepath.Base(name), data, mode)
}

// Rename renames a file below root, durably. An existing new name is replaced.
//
// The file is synced as well as its directories: on FAT its size and its place are written into the new name with the file, not with
// the directory, and until then the new name is one of an empty file (linux, fs/fat/namei_vfat.c, vfat_rename).
func Rename(root *os.Root, oldName, newName string) error {
	d := rootDir{root}
	if err := d.rename(oldName, newName); err != nil {
		return fmt.Errorf("rename %s: %w", oldName, err)
	}
	return errors.Join(syncFile(root, newName), d.sync(oldName), d.sync(newName))
}

// Remove removes a file below root, durably. A missing file is no error.
func Remove(root *os.Root, name string) error {
	d := rootDir{root}
	if err := d.remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return d.sync(name)
}

// A directory is what replace needs of an *os.Root; the tests have one in which every call can fail.
type directory interface {
	create(name string) (file, error)
	rename(oldName, newName string) error
	remove(name string) error
	sync(name string) error // syncs the directory that holds name
}

type file interface {
	Chmod(fs.FileMode) error
	Write([]byte) (int, error)
	Sync() error
	Close() error
}

func replace(d directory, name string, data []byte, mode fs.FileMode) error {
	tmp := path.Join(path.Dir(name), "."+path.Base(name)+".new")
	if err := fill(d, tmp, data, mode); err != nil {
		_ = d.remove(tmp) // the next call overwrites it anyway
		return fmt.Errorf("replace %s: %w", name, err)
	}
	if err := d.rename(tmp, name); err != nil {
		_ = d.remove(tmp)
		return fmt.Errorf("replace %s: %w", name, err)
	}
	if err := d.sync(name); err != nil {
		return fmt.Errorf("replace %s: replaced, but it may not survive a power cut: %w", name, err)
	}
	return nil
}

// fill writes and syncs the temporary file; it is closed on every path.
func fill(d directory, tmp string, data []byte, mode fs.FileMode) error {
	f, err := d.create(tmp)
	if err != nil {
		return err
	}
	err = f.Chmod(mode.Perm())
	if err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

type rootDir struct{ root *os.Root }

func (d rootDir) create(name string) (file, error) {
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (d rootDir) rename(oldName, newName string) error { return d.root.Rename(oldName, newName) }
func (d rootDir) remove(name string) error             { return d.root.Remove(name) }

func (d rootDir) sync(name string) error { return syncFile(d.root, path.Dir(name)) }

func syncFile(root *os.Root, name string) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
