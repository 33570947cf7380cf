package repo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A disk is what a change does to the repository's folder. Names have slashes. Tests have one that fills up or loses power.
type disk interface {
	Write(name string, b []byte) error    // a new file, synced
	Rename(oldName, newName string) error // in one step; the folder is synced
	Remove(name string) error
}

// folder is the real disk.
type folder string

func (f folder) path(name string) string { return filepath.Join(string(f), filepath.FromSlash(name)) }

// Write implements disk.
func (f folder) Write(name string, b []byte) error {
	file, err := os.OpenFile(f.path(name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = file.Write(b)
	return errors.Join(err, file.Chmod(0o644), file.Sync(), file.Close())
}

// Rename implements disk.
func (f folder) Rename(oldName, newName string) error {
	if err := os.Rename(f.path(oldName), f.path(newName)); err != nil {
		return err
	}
	return syncDir(filepath.Dir(f.path(newName)))
}

// Remove implements disk.
func (f folder) Remove(name string) error {
	if err := os.Remove(f.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(filepath.Dir(f.path(name)))
}

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// makeDirs makes a folder of the repository with all above it, so that it lasts.
func (d *Desk) makeDirs(name string) error {
	if fi, err := os.Stat(d.path(name)); err == nil && fi.IsDir() {
		return nil
	}
	if err := os.MkdirAll(d.path(name), 0o755); err != nil {
		return fmt.Errorf("write repository: %w", err)
	}
	for dir := d.path(name); ; dir = filepath.Dir(dir) {
		if err := syncDir(filepath.Dir(dir)); err != nil {
			return fmt.Errorf("write repository: %w", err)
		}
		if dir == d.Dir || len(dir) <= len(d.Dir) {
			return nil
		}
	}
}

const (
	lockFile    = ".lock"
	lockPatient = 10 * time.Second
)

// lock keeps other desks out while a command reads, decides and writes. Commands hold it for moments, so one that comes
// in between waits a little.
func (d *Desk) lock() (unlock func(), err error) {
	if fi, err := os.Stat(d.path("metadata")); err != nil || !fi.IsDir() {
		return nil, fmt.Errorf("%s is no repository: make one with release init", d.Dir)
	}
	if d.DryRun {
		return func() {}, nil
	}
	f, err := os.OpenFile(d.path(lockFile), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock repository: %w", err)
	}
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			break
		}
		if time.Since(start) > lockPatient || !errors.Is(err, unix.EWOULDBLOCK) {
			who, _ := os.ReadFile(f.Name())
			f.Close()
			return nil, fmt.Errorf("lock repository %s: another release command works on it (%s): %w: try again when it has ended", d.Dir, strings.TrimSpace(string(who)), err)
		}
	}
	if err := f.Truncate(0); err == nil {
		fmt.Fprintf(f, "process %d since %s\n", os.Getpid(), time.Now().UTC().Format(time.RFC3339))
	}
	return func() { f.Close() }, nil
}

// held reports whether somebody works on a file, which they show by a lock on it.
func held(name string) bool {
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
}
