package run

import (
	"errors"
	"fmt"
	"path"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// defaultDevices are those of config-linux.md, "Default Devices".
func defaultDevices() []specs.LinuxDevice {
	var out []specs.LinuxDevice
	for _, d := range []struct {
		name         string
		major, minor int64
	}{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}} {
		out = append(out, specs.LinuxDevice{Path: "/dev/" + d.name, Type: "c", Major: d.major, Minor: d.minor})
	}
	return out
}

// addDevices makes the devices and links of the container. In a user namespace, where nodes cannot be made, the caller's are bound.
func addDevices(root int, listed []specs.LinuxDevice, ids *idMaps) error {
	for _, d := range defaultDevices() {
		if err := addDevice(root, d, ids); err != nil {
			return err
		}
	}
	for i, d := range listed {
		if err := addDevice(root, d, ids); err != nil {
			return fmt.Errorf("linux.devices[%d]: %w", i, err)
		}
	}
	dev, err := ensure(root, ids, "/dev", true, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dev)
	for _, l := range [][2]string{{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"},
		{"stderr", "/proc/self/fd/2"}, {"core", "/proc/kcore"}, {"ptmx", "pts/ptmx"}} {
		if err := unix.Symlinkat(l[1], dev, l[0]); err != nil && err != unix.EEXIST {
			return fmt.Errorf("link /dev/%s: %w", l[0], err)
		}
	}
	return nil
}

var errOther = errors.New("the image has something else there")

func addDevice(root int, d specs.LinuxDevice, ids *idMaps) error {
	p := path.Clean(d.Path)
	dir, err := ensure(root, ids, path.Dir(p), true, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	kind := map[string]uint32{"c": unix.S_IFCHR, "u": unix.S_IFCHR, "b": unix.S_IFBLK, "p": unix.S_IFIFO}[d.Type]
	rdev := unix.Mkdev(uint32(d.Major), uint32(d.Minor))
	if kind == unix.S_IFIFO {
		rdev = 0
	}
	if ids != nil && kind != unix.S_IFIFO {
		return bindDevice(root, ids, p, kind, rdev)
	}
	mode := uint32(0o666)
	if d.FileMode != nil {
		mode = uint32(*d.FileMode) & 0o7777
	}
	name := path.Base(p)
	err = unix.Mknodat(dir, name, kind|mode, int(rdev))
	if err == unix.EEXIST {
		var st unix.Stat_t
		if err = unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil && (st.Mode&unix.S_IFMT != kind || st.Rdev != rdev) {
			err = errOther
		}
	}
	if err == nil && (d.UID != nil || d.GID != nil) {
		id := func(v *uint32) int {
			if v == nil {
				return -1
			}
			return int(*v)
		}
		err = unix.Fchownat(dir, name, id(d.UID), id(d.GID), unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		return fmt.Errorf("make %s: %w", p, err)
	}
	return nil
}

// bindDevice binds the caller's node of the same name, if it is the same device.
func bindDevice(root int, ids *idMaps, p string, kind uint32, rdev uint64) error {
	from, err := unix.OpenTree(unix.AT_FDCWD, p, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("bind %s of the host: %w", p, err)
	}
	defer unix.Close(from)
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return fmt.Errorf("bind %s of the host: %w", p, err)
	}
	if st.Mode&unix.S_IFMT != kind || st.Rdev != rdev {
		return fmt.Errorf("bind %s of the host: it is another device", p)
	}
	return attachDevice(root, ids, p, from)
}

// attachDevice mounts a device's node on a file of its name.
func attachDevice(root int, ids *idMaps, p string, node int) error {
	if err := setAttr(node, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, 0, false); err != nil {
		return fmt.Errorf("bind %s: %w", p, err)
	}
	at, err := ensure(root, ids, p, false, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	if err := mountOn(node, at); err != nil {
		return fmt.Errorf("bind %s: %w", p, err)
	}
	return nil
}
