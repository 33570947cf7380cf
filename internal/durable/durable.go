// Package durable replaces, appends to, renames and removes files so that a power cut leaves the old state or the new one.
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
// Appending promises less: a power cut leaves what was there, with any part of the new bytes, or with zeros in their place, behind it.
// durabletest goes through every power cut that this allows for.
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

// A Directory is where files are changed. In is the real one; that of durabletest loses power.
type Directory interface {
	OpenFile(name string, flag int, mode fs.FileMode) (File, error) // flag as for os.OpenFile
	Rename(oldName, newName string) error
	Remove(name string) error
	Sync(name string) error // of a file or of a directory, "." is itself
}

// A File is written and synced.
type File interface {
	Chmod(fs.FileMode) error
	Write([]byte) (int, error)
	Sync() error
	Close() error
}

// In is the directory of root.
func In(root *os.Root) Directory { return rootDir{root} }

// WriteFile replaces the file name below root by data with the permission bits of mode, durably.
func WriteFile(root *os.Root, name string, data []byte, mode fs.FileMode) error {
	return Replace(In(root), name, data, mode)
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
func Rename(root *os.Root, oldName, newName string) error { return Move(In(root), oldName, newName) }

// Move is Rename in a Directory.
func Move(d Directory, oldName, newName string) error {
	if err := d.Rename(oldName, newName); err != nil {
		return fmt.Errorf("rename %s: %w", oldName, err)
	}
	return errors.Join(d.Sync(newName), d.Sync(path.Dir(oldName)), d.Sync(path.Dir(newName)))
}

// Remove removes a file below root, durably. A missing file is no error.
func Remove(root *os.Root, name string) error { return Delete(In(root), name) }

// Delete is Remove in a Directory.
func Delete(d Directory, name string) error {
	if err := d.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return d.Sync(path.Dir(name))
}

// Append adds data to a file, which is made with the permission bits of mode less the umask if it is missing, durably.
func Append(d Directory, name string, data []byte, mode fs.FileMode) error {
	f, err := d.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	made := errors.Is(err, fs.ErrNotExist)
	if made {
		f, err = d.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, mode)
	}
	if err != nil {
		return fmt.Errorf("append to %s: %w", name, err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil && made { // or a power cut takes the file with all that was appended to it since
		err = d.Sync(path.Dir(name))
	}
	if err != nil {
		return fmt.Errorf("append to %s: %w", name, err)
	}
	return nil
}

// Replace is WriteFile in a Directory.
func Replace(d Directory, name string, data []byte, mode fs.FileMode) error {
	tmp := path.Join(path.Dir(name), "."+path.Base(name)+".new")
	if err := fill(d, tmp, data, mode); err != nil {
		_ = d.Remove(tmp) // the next call overwrites it anyway
		return fmt.Errorf("replace %s: %w", name, err)
	}
	if err := d.Rename(tmp, name); err != nil {
		_ = d.Remove(tmp)
		return fmt.Errorf("replace %s: %w", name, err)
	}
	if err := d.Sync(path.Dir(name)); err != nil {
		return fmt.Errorf("replace %s: replaced, but it may not survive a power cut: %w", name, err)
	}
	return nil
}

// fill writes and syncs the temporary file; it is closed on every path.
func fill(d Directory, tmp string, data []byte, mode fs.FileMode) error {
	f, err := d.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
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

func (d rootDir) OpenFile(name string, flag int, mode fs.FileMode) (File, error) {
	f, err := d.root.OpenFile(name, flag, mode)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (d rootDir) Rename(oldName, newName string) error { return d.root.Rename(oldName, newName) }
func (d rootDir) Remove(name string) error             { return d.root.Remove(name) }

func (d rootDir) Sync(name string) error {
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
