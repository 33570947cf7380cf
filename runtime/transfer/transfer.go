// Package transfer copies files into and out of a tree of files that a stranger may control and change meanwhile, as tar streams.
//
// containerctl cp puts it between a container and the machine: a Tree is either, by a descriptor of its root. Pack writes a tar archive of
// a file or directory, Unpack reads one below a directory.
//
// Invariants. No path leads out of the tree: the first step is openat2(2) with RESOLVE_IN_ROOT and without magic links, each further one
// is from a descriptor and follows no link at all, so a link that is put in the way in between is an error. A file is replaced and
// never written through (but one that is a mount of its own, as /etc/hosts in a container). Of an archive no name with ".." is taken,
// devices are refused, and unless owners are kept nothing is setuid. Reading waits for no FIFO.
//
// Subset of tar: directories, regular files, symbolic and hard links, FIFOs; modes, owners, times. Sockets, proc and sysfs are left out.
// Extended attributes are not copied.
package transfer

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// A Tree is a file system seen from a root directory.
type Tree struct {
	root *os.File
	// First is the number on the machine that stands for 0 in the tree, Count how many there are; 0 for all as they are.
	First, Count uint32
}

// Open returns the tree below a directory, which may be a magic link as /proc/PID/root is. The caller closes it.
func Open(dir string) (*Tree, error) {
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &Tree{root: f}, nil
}

// Close closes the descriptor.
func (t *Tree) Close() error { return t.root.Close() }

// at opens a path of the tree; links, which may be anywhere in it, stay inside.
func (t *Tree) at(name string, flags uint64) (*os.File, error) {
	return openat2(int(t.root.Fd()), strings.TrimPrefix(path.Join("/", name), "/"), flags, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
}

// below opens a path below a directory of the tree, without following anything.
func below(dir *os.File, name string, flags uint64) (*os.File, error) {
	return openat2(int(dir.Fd()), name, flags|unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
}

func openat2(dir int, name string, flags, resolve uint64) (*os.File, error) {
	if name == "" {
		name = "."
	}
	for {
		fd, err := unix.Openat2(dir, name, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolve})
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN): // a rename at the same time
			continue
		case err != nil:
			return nil, &os.PathError{Op: "open", Path: name, Err: err}
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}

// Kind tells what a path is: its mode, or false if it is not there. A link at its end is followed.
func (t *Tree) Kind(name string) (os.FileMode, bool, error) {
	f, err := t.at(name, unix.O_PATH)
	if errors.Is(err, unix.ENOENT) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, false, err
	}
	return st.Mode(), true, nil
}

// inside is the tree's number for one of the machine's.
func (t *Tree) inside(id uint32) int {
	if t.Count == 0 {
		return int(id)
	}
	if id-t.First < t.Count {
		return int(id - t.First)
	}
	return 65534
}

// outside is the machine's number for one of the tree's.
func (t *Tree) outside(id int) (int, error) {
	if t.Count == 0 {
		return id, nil
	}
	if id < 0 || uint64(id) >= uint64(t.Count) {
		return 0, fmt.Errorf("owner %d: there are %d numbers only", id, t.Count)
	}
	return int(t.First) + id, nil
}
