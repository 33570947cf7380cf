package run

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/spec"
)

// enterRoot makes the container's file system tree in the child's mount namespace and makes that its root. This thread enters
// the namespace for it and comes back. made are the file systems that the child has made.
func (k *creation) enterRoot(made []int, ids *idMaps) error {
	defer closeAll(made)
	// Sources are opened where the caller is.
	root, sources, err := k.openSources()
	defer closeAll(sources)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	for i, fd := range made {
		sources[k.made[i]] = fd
	}
	if k.spec.Hooks == nil {
		return k.inMounts(func() error {
			if err := k.buildRoot(root, sources, ids); err != nil {
				return err
			}
			return k.closeRoot(root)
		})
	}
	if err := k.inMounts(func() error { return k.buildRoot(root, sources, ids) }); err != nil {
		return err
	}
	if err := k.runtimeHooks(); err != nil {
		return err
	}
	return k.inMounts(func() error { return k.closeRoot(root) })
}

// inMounts calls f in the container's mount namespace.
func (k *creation) inMounts(f func() error) error {
	if k.shared != "" {
		return f()
	}
	back, err := enterMounts(k.child.proc.pidfd)
	if err != nil {
		return fmt.Errorf("enter the container's mounts: %w", err)
	}
	err = f()
	if berr := back(); err == nil && berr != nil {
		err = fmt.Errorf("leave the container's mounts: %w", berr)
	}
	return err
}

func closeAll(fds []int) {
	for _, fd := range fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// enterMounts moves this thread into the mount namespace of a process. The function it returns moves it back.
func enterMounts(pidfd int) (func() error, error) {
	runtime.LockOSThread() // for good: the thread no longer shares its root with others
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return nil, err
	}
	var saved []int
	for _, f := range []struct {
		name  string
		flags int
	}{{"/proc/thread-self/ns/mnt", unix.O_RDONLY}, {"/", unix.O_PATH}, {".", unix.O_PATH}} {
		fd, err := unix.Open(f.name, f.flags|unix.O_CLOEXEC, 0)
		if err != nil {
			closeAll(saved)
			return nil, err
		}
		saved = append(saved, fd)
	}
	if err := unix.Setns(pidfd, unix.CLONE_NEWNS); err != nil {
		closeAll(saved)
		return nil, err
	}
	return func() error {
		defer closeAll(saved)
		if err := unix.Setns(saved[0], unix.CLONE_NEWNS); err != nil {
			return err
		}
		if err := unix.Fchdir(saved[1]); err != nil {
			return err
		}
		if err := unix.Chroot("."); err != nil {
			return err
		}
		return unix.Fchdir(saved[2])
	}, nil
}

// openSources opens the root directory and what is bound, as mounts that are attached nowhere yet; -1 for the others.
func (k *creation) openSources() (root int, sources []int, err error) {
	dir := within(k.bundle, k.spec.Root.Path)
	root, err = unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return -1, nil, fmt.Errorf("root.path: %w", &os.PathError{Op: "open", Path: dir, Err: err})
	}
	propagation := uint64(unix.MS_PRIVATE)
	if p, _ := spec.Propagation(k.spec.Linux.RootfsPropagation); p&^unix.MS_REC == unix.MS_SLAVE {
		propagation = unix.MS_SLAVE
	}
	if err := setPropagation(root, propagation, true); err != nil {
		unix.Close(root)
		return -1, nil, fmt.Errorf("root.path: make private: %w", err)
	}
	sources = make([]int, len(k.mounts))
	for i, m := range k.mounts {
		sources[i] = -1
		if m.Type != "bind" {
			continue
		}
		if group, ok := k.groupSource(i); ok {
			m.Source = group
		}
		if m.Source == "" { // see parseMounts
			if m.Source = k.c.Cgroup; m.Source == "" {
				m.Source = "/sys/fs/cgroup"
				m.Recursive = true
			}
		}
		if sources[i], err = bindSource(within(k.bundle, m.Source), m); err == nil && m.IDMap {
			err = mapIDs(sources[i], m, k.child.proc.Pid)
		}
		if err != nil {
			unix.Close(root)
			return -1, sources, fmt.Errorf("mounts[%d] (%s): %w", i, m.Destination, err)
		}
	}
	return root, sources, nil
}

// buildRoot works in the container's mount namespace. All of it happens by descriptors below the root directory.
func (k *creation) buildRoot(root int, sources []int, ids *idMaps) error {
	s := k.spec
	// Nothing that is mounted here may show up outside.
	if k.shared == "" {
		if err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &unix.MountAttr{Propagation: unix.MS_PRIVATE}); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
	}
	dir := within(k.bundle, s.Root.Path)
	if err := unix.MoveMount(root, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS); err != nil {
		return fmt.Errorf("root.path: %w", &os.PathError{Op: "bind", Path: dir, Err: err})
	}
	k.c.Mounted = k.shared
	// What is made has the mode that is said.
	defer unix.Umask(unix.Umask(0))
	if ids != nil {
		// What is made belongs to the container's root, and the file systems of its namespace know no other.
		uid, gid := ids.root()
		unix.SetfsgidRetGid(gid)
		unix.SetfsuidRetUid(uid)
		defer unix.SetfsgidRetGid(0)
		defer unix.SetfsuidRetUid(0)
	}
	return k.addMounts(root, sources, ids)
}

// closeRoot covers what the container is not to see or change, and makes the root its own: the caller's tree is detached.
func (k *creation) closeRoot(root int) error {
	s := k.spec
	for i, p := range s.Linux.ReadonlyPaths {
		if err := makeReadonly(root, p); err != nil {
			return fmt.Errorf("linux.readonlyPaths[%d] (%s): %w", i, p, err)
		}
	}
	if err := maskAll(root, s.Linux.MaskedPaths); err != nil {
		return err
	}
	attr := uint64(0)
	if s.Root.Readonly {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	if spec.HasDev(s) && len(s.Linux.Devices) == 0 {
		attr |= unix.MOUNT_ATTR_NODEV // devices are in the mount at /dev and nowhere else
	}
	if err := setAttr(root, attr, 0, false); err != nil {
		return fmt.Errorf("root.readonly: %w", err)
	}
	if k.shared != "" {
		return nil // the child changes its root
	}
	if err := pivot(root); err != nil {
		return err
	}
	if p, _ := spec.Propagation(s.Linux.RootfsPropagation); p&^unix.MS_REC == unix.MS_SHARED || p&^unix.MS_REC == unix.MS_UNBINDABLE {
		if err := setPropagation(root, p&^unix.MS_REC, p&unix.MS_REC != 0); err != nil {
			return fmt.Errorf("linux.rootfsPropagation: %w", err)
		}
	}
	return nil
}

// addMounts attaches all mounts and makes the devices.
func (k *creation) addMounts(root int, sources []int, ids *idMaps) error {
	for i, m := range k.mounts {
		var err error
		if sources[i] < 0 {
			sources[i], err = newMount(m.Type, m.Source, m.Data, m.Set)
		}
		if err == nil {
			err = addMount(root, ids, sources[i], m)
		}
		if err != nil {
			return fmt.Errorf("mounts[%d] (%s): %w", i, m.Destination, err)
		}
	}
	if err := k.linkControllers(root); err != nil {
		return err
	}
	if err := addDevices(root, k.spec.Linux.Devices, ids); err != nil {
		return err
	}
	if k.spec.Process.Terminal {
		at, err := ensure(root, ids, "/dev/console", false, 0) // see plan.console
		if err != nil {
			return fmt.Errorf("process.terminal: %w", err)
		}
		unix.Close(at)
	}
	// A working directory that is missing is made, as others do; what else may be wrong with it is the child's to tell.
	if at, err := ensure(root, ids, k.spec.Process.Cwd, true, 0); err == nil {
		unix.Close(at)
	}
	for i, m := range k.mounts {
		if err := setAttr(sources[i], m.Later, 0, false); err != nil {
			return fmt.Errorf("mounts[%d] (%s): make read-only: %w", i, m.Destination, err)
		}
	}
	return nil
}

func within(dir, p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(dir, p)
}

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

func propagate(fd int, kinds []uint64) error {
	for _, p := range kinds {
		if err := setPropagation(fd, p&^unix.MS_REC, p&unix.MS_REC != 0); err != nil {
			return fmt.Errorf("set propagation: %w", err)
		}
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

// ownCgroupNS reports whether the container sees its group as the root of all.
func (k *creation) ownCgroupNS() bool {
	return slices.ContainsFunc(k.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace })
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

// makeReadonly covers a path by a read-only view of itself; a path that does not exist needs none.
func makeReadonly(root int, p string) error {
	at, err := openInRoot(root, p, 0)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(at)
	view, err := unix.OpenTree(at, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return fmt.Errorf("clone: %w", err)
	}
	defer unix.Close(view)
	if err := setAttr(view, unix.MOUNT_ATTR_RDONLY, 0, true); err != nil {
		return fmt.Errorf("make read-only: %w", err)
	}
	return mountOn(view, at)
}

// maskAll covers files by the host's /dev/null and directories by one empty read-only file system. A path that does not exist
// needs no cover.
func maskAll(root int, paths []string) error {
	null, empty := -1, -1
	defer func() { closeAll([]int{null, empty}) }()
	for i, p := range paths {
		if slices.Contains(paths[:i], p) {
			continue // one cover is enough
		}
		at, err := openInRoot(root, p, 0)
		if err == unix.ENOENT || err == unix.ENOTDIR {
			continue
		}
		if err == nil {
			err = mask(at, &null, &empty)
			unix.Close(at)
		}
		if err != nil {
			return fmt.Errorf("linux.maskedPaths[%d] (%s): %w", i, p, err)
		}
	}
	return nil
}

// mask covers what at is. The empty directory is made when the first one is needed, and that one is cloned for the others: before
// Linux 6.15 a mount can be cloned only when it is attached.
func mask(at int, null, empty *int) error {
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return err
	}
	var err error
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if *empty < 0 {
			if *empty, err = newEmpty(); err != nil {
				return err
			}
			return mountOn(*empty, at)
		}
		return mountClone(*empty, at)
	}
	if *null < 0 {
		if *null, err = openNull(); err != nil {
			return err
		}
	}
	return mountClone(*null, at)
}

func mountClone(of, at int) error {
	fd, err := unix.OpenTree(of, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("clone cover: %w", err)
	}
	defer unix.Close(fd)
	return mountOn(fd, at)
}

func newEmpty() (int, error) {
	return newMount("tmpfs", "", []string{"nr_blocks=1", "nr_inodes=1"}, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}

func openNull() (int, error) {
	fd, err := unix.Open("/dev/null", unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && (st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3)) {
		err = errors.New("/dev/null of the host is not the null device")
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// pivot makes root the root of the mount namespace and detaches the caller's.
func pivot(root int) error {
	if err := unix.Fchdir(root); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	// With both arguments the same the old root lies on top of the new one (pivot_root(2), NOTES).
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	return nil
}
