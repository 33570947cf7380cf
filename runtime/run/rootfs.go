package run

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"

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

// ownCgroupNS reports whether the container sees its group as the root of all.
func (k *creation) ownCgroupNS() bool {
	return slices.ContainsFunc(k.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace })
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
