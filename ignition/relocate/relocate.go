// Package relocate copies a machine's state to another file system, which is /var from the next boot on.
//
// It stands at the very end of provisioning, when a config puts a file system at /var: package stage has written everything to the state
// that the machine was installed with; this package copies it, and only then says so there (Pointer), in one durable write. The
// initramfs, which mounts state before anything else runs, follows what is written there.
//
// What is on the target already stays, as the config's rules of reuse have it, but for two directories that are replaced as a whole:
// the overlay of /etc and what ignition knows. They belong to this machine, and no file of another one may shine through. If a factory
// reset has left its request there (Request), nothing stays. Copy may stop
// anywhere and be run again. Other file systems below the source are left out, their mount points are made.
package relocate

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Pointer is the file in state, relative to /var, that says where state is instead: a line "var 1", and a line with the UUID of an ext4 file
// system (docs/formats.md). The initramfs reads it (init/state).
const Pointer = "lib/ignition/var"

// Text is the content of Pointer.
func Text(uuid string) []byte { return []byte("var 1\n" + strings.ToLower(uuid) + "\n") }

// Request is the file that says, relative to a state, that nothing in it counts any more, and all that is in it then: the
// initramfs carries it out in the state that it mounts, Copy in one that the machine has lost track of with its own.
const (
	Request     = "lib/ignition/reset"
	requestText = "reset 1\n"
)

// replaced are the directories of which nothing on the target stays.
var replaced = [...]string{"lib/etc", "lib/ignition"}

// Copy copies state from one directory to another one, the roots of two file systems, and makes it durable.
func Copy(from, to string) error {
	target, err := os.OpenRoot(to) // a link of another machine's may lead to the state of this one
	if err != nil {
		return fmt.Errorf("copy state: %w", err)
	}
	defer target.Close()
	if err := forget(target); err != nil {
		return fmt.Errorf("copy state: forget what a factory reset has left in %s: %w", to, err)
	}
	if err := makeRoom(filepath.Join(to, "lib"), true); err != nil {
		return fmt.Errorf("copy state: %w", err)
	}
	for _, name := range replaced {
		if err := target.RemoveAll(name); err != nil {
			return fmt.Errorf("copy state: %w", err)
		}
	}
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return fmt.Errorf("copy state: %s: %w", from, err)
	}
	c := &copier{root: from, device: st.Dev, links: map[uint64]string{}}
	if err := c.directory(from, to); err != nil {
		return fmt.Errorf("copy state: %w", err)
	}
	if err := sync(to); err != nil {
		return fmt.Errorf("copy state: write %s to disk: %w", to, err)
	}
	return nil
}

// forget empties a state with a request. The request goes last.
func forget(state *os.Root) error {
	if b, err := state.ReadFile(Request); err != nil || string(b) != requestText {
		return nil // none, or one that keeps some paths: it is not a factory reset's
	}
	above := map[string]bool{}
	for dir := filepath.Dir(Request); dir != "."; dir = filepath.Dir(dir) {
		above[dir] = true
	}
	var empty func(dir string) error
	empty = func(dir string) error {
		entries, err := fs.ReadDir(state.FS(), dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			switch name := filepath.Join(dir, e.Name()); {
			case name == Request || name == "lost+found":
			case above[name]:
				err = empty(name)
			default:
				err = state.RemoveAll(name)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	if err := empty("."); err != nil {
		return err
	}
	if err := sync(state.Name()); err != nil {
		return err
	}
	return state.Remove(Request)
}

// sync makes everything on a file system durable.
func sync(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}

type copier struct {
	root   string
	device uint64
	links  map[uint64]string // inode with several names -> its first copy
}

func (c *copier) directory(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if from == c.root && e.Name() == "lost+found" { // a file system's own
			continue
		}
		if err := c.entry(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (c *copier) entry(from, to string) error {
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if err := makeRoom(to, isDir); err != nil {
		return err
	}
	if isDir {
		if err := os.Mkdir(to, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if st.Dev == c.device {
			if err := c.directory(from, to); err != nil {
				return err
			}
		}
		return attributes(from, to, &st)
	}
	if first := c.links[st.Ino]; first != "" {
		return os.Link(first, to)
	}
	if st.Nlink > 1 {
		c.links[st.Ino] = to
	}
	if err := contents(from, to, &st); err != nil {
		return err
	}
	return attributes(from, to, &st)
}

// makeRoom removes what is at a name, but keeps a directory for a directory.
func makeRoom(name string, forDir bool) error {
	info, err := os.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir() && forDir:
		return nil
	}
	return os.RemoveAll(name)
}

// contents makes what is no directory. Character devices are the overlay's word for "removed".
func contents(from, to string, st *unix.Stat_t) error {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return copyFile(from, to)
	case unix.S_IFLNK:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case unix.S_IFSOCK:
		return nil // of a program that does not run on
	}
	if err := unix.Mknod(to, st.Mode, int(st.Rdev)); err != nil {
		return fmt.Errorf("%s: %w", to, err)
	}
	return nil
}

func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}

// attributes sets owner, mode, extended attributes (the overlay's own among them) and time.
func attributes(from, to string, st *unix.Stat_t) error {
	if st.Mode&unix.S_IFMT == unix.S_IFSOCK {
		return nil
	}
	if err := os.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
			return fmt.Errorf("%s: %w", to, err)
		}
	}
	if err := copyXattrs(from, to); err != nil {
		return err
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, to, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("%s: %w", to, err)
	}
	return nil
}

func copyXattrs(from, to string) error {
	size, err := unix.Llistxattr(from, nil)
	if errors.Is(err, unix.ENOTSUP) || err == nil && size == 0 {
		return nil
	}
	names := make([]byte, max(size, 0))
	if err == nil {
		size, err = unix.Llistxattr(from, names)
	}
	if err != nil {
		return fmt.Errorf("list attributes of %s: %w", from, err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:size]), "\x00"), "\x00") {
		value := make([]byte, 64<<10) // XATTR_SIZE_MAX
		n, err := unix.Lgetxattr(from, name, value)
		if err == nil {
			err = unix.Lsetxattr(to, name, value[:n], 0)
		}
		if err != nil {
			return fmt.Errorf("copy attribute %s of %s: %w", name, from, err)
		}
	}
	return nil
}
