package run

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/spec"
)

// enterRoot makes the container's file system tree in the new mount namespace and moves into it. All of it happens by
// descriptors below the root directory while the caller's tree is still there for sources; then that is detached.
func enterRoot(s *specs.Spec, bundle string) error {
	// Nothing that is mounted here may show up outside.
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &unix.MountAttr{Propagation: unix.MS_PRIVATE}); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	root, err := bindRoot(within(bundle, s.Root.Path))
	if err != nil {
		return fmt.Errorf("root.path: %w", err)
	}
	defer unix.Close(root)
	for i, m := range s.Mounts {
		p, err := spec.ParseMount(m)
		if err == nil {
			err = addMount(root, bundle, p)
		}
		if err != nil {
			return fmt.Errorf("mounts[%d] (%s): %w", i, m.Destination, err)
		}
	}
	if err := addDevices(root); err != nil {
		return err
	}
	if err := setSysctls(s.Linux.Sysctl); err != nil {
		return err
	}
	for i, p := range s.Linux.ReadonlyPaths {
		if err := makeReadonly(root, p); err != nil {
			return fmt.Errorf("linux.readonlyPaths[%d] (%s): %w", i, p, err)
		}
	}
	for i, p := range s.Linux.MaskedPaths {
		if err := mask(root, p); err != nil {
			return fmt.Errorf("linux.maskedPaths[%d] (%s): %w", i, p, err)
		}
	}
	attr := uint64(0)
	if s.Root.Readonly {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	if spec.HasDev(s) {
		attr |= unix.MOUNT_ATTR_NODEV // devices are in the mount at /dev and nowhere else
	}
	if err := setAttr(root, attr, 0, false); err != nil {
		return fmt.Errorf("root.readonly: %w", err)
	}
	return pivot(root)
}

func within(dir, p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(dir, p)
}

// bindRoot makes the directory a mount of its own, with what is mounted below it, and opens that.
func bindRoot(dir string) (int, error) {
	tree, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(tree)
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS); err != nil {
		return -1, &os.PathError{Op: "bind", Path: dir, Err: err}
	}
	return unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

func addMount(root int, bundle string, m spec.Mount) error {
	var fd int
	var err error
	dir, extra := true, uint64(0)
	switch m.Type {
	case "bind":
		fd, dir, err = bindSource(within(bundle, m.Source), m)
	case "tmpfs":
		fd, err = newMount(m.Type, m.Source, m.Data, m.Set)
	case "cgroup":
		var st unix.Statfs_t
		if err := unix.Statfs("/sys/fs/cgroup", &st); err != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
			return &spec.UnsupportedError{Field: "type cgroup", Reason: "/sys/fs/cgroup is not a cgroup2 file system"}
		}
		m.Type, m.Source = "cgroup2", "cgroup2"
		fallthrough
	default:
		extra = unix.RESOLVE_NO_SYMLINKS
		fd, err = newMount(m.Type, m.Source, m.Data, m.Set)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := setAttr(fd, m.SetRec, 0, true); err != nil {
		return fmt.Errorf("set recursive options: %w", err)
	}
	target, err := ensure(root, m.Destination, dir, extra)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	if err := mountOn(fd, target); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	return nil
}

// bindSource clones the mount at a path of the host and reports whether it is a directory.
func bindSource(source string, m spec.Mount) (fd int, dir bool, err error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if m.Recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err = unix.OpenTree(unix.AT_FDCWD, source, flags)
	if err != nil {
		return -1, false, &os.PathError{Op: "open source", Path: source, Err: err}
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil {
		err = setAttr(fd, m.Set, m.Clear, false)
	}
	if err != nil {
		unix.Close(fd)
		return -1, false, &os.PathError{Op: "bind", Path: source, Err: err}
	}
	return fd, st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}

// addDevices makes the devices and links that config-linux.md ("Default Devices") promises.
func addDevices(root int) error {
	dev, err := ensure(root, "/dev", true, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dev)
	for _, d := range []struct {
		name         string
		major, minor uint32
	}{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}} {
		rdev := unix.Mkdev(d.major, d.minor)
		err := unix.Mknodat(dev, d.name, unix.S_IFCHR|0o666, int(rdev))
		if err == unix.EEXIST {
			var st unix.Stat_t
			if err = unix.Fstatat(dev, d.name, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil &&
				(st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != rdev) {
				err = fmt.Errorf("the image has something else there")
			}
		}
		if err != nil {
			return fmt.Errorf("make /dev/%s: %w", d.name, err)
		}
	}
	for _, l := range [][2]string{{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"},
		{"stderr", "/proc/self/fd/2"}, {"core", "/proc/kcore"}, {"ptmx", "pts/ptmx"}} {
		if err := unix.Symlinkat(l[1], dev, l[0]); err != nil && err != unix.EEXIST {
			return fmt.Errorf("link /dev/%s: %w", l[0], err)
		}
	}
	return nil
}

// setSysctls writes through a /proc of its own, which nothing in the root file system can replace.
func setSysctls(settings map[string]string) error {
	if len(settings) == 0 {
		return nil
	}
	proc, err := newMount("proc", "", nil, 0)
	if err != nil {
		return fmt.Errorf("linux.sysctl: %w", err)
	}
	defer unix.Close(proc)
	for key, value := range settings {
		fd, err := unix.Openat2(proc, "sys/"+strings.ReplaceAll(key, ".", "/"), &unix.OpenHow{
			Flags: unix.O_WRONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
		if err == nil {
			_, err = unix.Write(fd, []byte(value))
			unix.Close(fd)
		}
		if err != nil {
			return fmt.Errorf("linux.sysctl.%s: %w", key, err)
		}
	}
	return nil
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

// mask covers a file by the host's /dev/null and a directory by an empty read-only one.
func mask(root int, p string) error {
	at, err := openInRoot(root, p, 0)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return err
	}
	var cover int
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		cover, err = newMount("tmpfs", "", []string{"nr_blocks=1", "nr_inodes=1"}, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	} else {
		cover, err = unix.OpenTree(unix.AT_FDCWD, "/dev/null", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
		if err == nil {
			if err = unix.Fstat(cover, &st); err == nil && (st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3)) {
				err = fmt.Errorf("/dev/null of the host is not the null device")
			}
			if err != nil {
				unix.Close(cover)
			}
		}
	}
	if err != nil {
		return err
	}
	defer unix.Close(cover)
	return mountOn(cover, at)
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

// enterDir changes to the working directory and makes sure that it is inside: a path such as /proc/self/fd/7 could
// lead out through a descriptor.
func enterDir(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return fmt.Errorf("process.cwd: %w", &os.PathError{Op: "chdir", Path: dir, Err: err})
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Getcwd(buf)
	if err != nil || n < 1 || !path.IsAbs(string(buf[:n])) {
		return fmt.Errorf("process.cwd: %s leads out of the container", dir)
	}
	return nil
}
