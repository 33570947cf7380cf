package run

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/spec"
)

// addMount attaches the mount fd at its place.
func addMount(root int, ids *idMaps, fd int, m spec.Mount) error {
	dir, extra := true, uint64(0)
	switch {
	case m.Type == "bind":
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		dir = st.Mode&unix.S_IFMT == unix.S_IFDIR
	case ofNamespace(m.Type):
		extra = unix.RESOLVE_NO_SYMLINKS
	}
	if err := takeMode(root, fd, m); err != nil {
		return err
	}
	if m.CopyUp {
		if err := copyUpFrom(root, fd, m.Destination); err != nil {
			return fmt.Errorf("tmpcopyup: %w", err)
		}
	}
	if err := setAttr(fd, m.SetRec, m.ClearRec, true); err != nil {
		return fmt.Errorf("set recursive options: %w", err)
	}
	target, err := ensure(root, ids, m.Destination, dir, extra)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	if err := mountOn(fd, target); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	if m.Type != "bind" {
		return propagate(fd, m.Propagation)
	}
	return nil
}

// takeMode gives a tmpfs that is told no mode that of the directory it is going to cover. The kernel's own is 1777, for everybody.
func takeMode(root, fd int, m spec.Mount) error {
	if m.Type != "tmpfs" || slices.ContainsFunc(m.Data, func(o string) bool { return strings.HasPrefix(o, "mode=") }) {
		return nil
	}
	at, err := openInRoot(root, m.Destination, 0)
	if err != nil {
		return nil // there is nothing to cover, or it is not for this user to see
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err = unix.Fstat(at, &st); err == nil {
		err = unix.Fchmodat(fd, ".", st.Mode&0o7777, 0)
	}
	if err != nil {
		return fmt.Errorf("take the mode of the directory below: %w", err)
	}
	return nil
}

func propagate(fd int, kinds []uint64) error {
	for _, p := range kinds {
		if err := setPropagation(fd, p&^unix.MS_REC, p&unix.MS_REC != 0); err != nil {
			return fmt.Errorf("set propagation: %w", err)
		}
	}
	return nil
}

// copyUpFrom fills a file system with what lies at the place it is going to cover.
func copyUpFrom(root, fd int, p string) error {
	from, err := openInRoot(root, p, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(from)
	return copyUp(from, fd)
}

// bindSource clones the mount at a path of the host.
func bindSource(source string, m spec.Mount) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if m.Recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, source, flags)
	if err != nil {
		return -1, &os.PathError{Op: "open source", Path: source, Err: err}
	}
	if err = setAttr(fd, m.Set, m.Clear, false); err == nil {
		// A clone has the propagation of its source, which a slave or a shared mount is to have.
		if len(m.Propagation) > 0 {
			err = propagate(fd, m.Propagation)
		} else {
			err = setPropagation(fd, unix.MS_PRIVATE, true)
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, &os.PathError{Op: "bind", Path: source, Err: err}
	}
	return fd, nil
}

// setPropagation changes what mount_namespaces(7) calls the propagation type: MS_PRIVATE, MS_SHARED, MS_SLAVE or MS_UNBINDABLE.
func setPropagation(mount int, kind uint64, recursive bool) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.MountSetattr(mount, "", flags, &unix.MountAttr{Propagation: kind})
}
