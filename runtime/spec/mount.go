package spec

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A Mount is one entry of mounts in the terms of the kernel's mount API (fsopen(2), open_tree(2), mount_setattr(2)).
type Mount struct {
	Destination string // clean absolute path in the container
	Type        string // file system type; "bind" for Source
	Source      string
	Recursive   bool     // bind: with the mounts below Source
	Set, Clear  uint64   // MOUNT_ATTR_* of this mount
	SetRec      uint64   // MOUNT_ATTR_* of this mount and all below
	Data        []string // key or key=value for the file system
}

// attrs are the options that are a property of the mount, in the words of mount(8). "r" in front makes one recursive.
var attrs = [...]struct {
	name       string
	set, clear uint64
}{
	{"ro", unix.MOUNT_ATTR_RDONLY, 0}, {"rw", 0, unix.MOUNT_ATTR_RDONLY},
	{"nosuid", unix.MOUNT_ATTR_NOSUID, 0}, {"suid", 0, unix.MOUNT_ATTR_NOSUID},
	{"nodev", unix.MOUNT_ATTR_NODEV, 0}, {"dev", 0, unix.MOUNT_ATTR_NODEV},
	{"noexec", unix.MOUNT_ATTR_NOEXEC, 0}, {"exec", 0, unix.MOUNT_ATTR_NOEXEC},
	{"nosymfollow", unix.MOUNT_ATTR_NOSYMFOLLOW, 0}, {"symfollow", 0, unix.MOUNT_ATTR_NOSYMFOLLOW},
	{"nodiratime", unix.MOUNT_ATTR_NODIRATIME, 0}, {"diratime", 0, unix.MOUNT_ATTR_NODIRATIME},
	{"noatime", unix.MOUNT_ATTR_NOATIME, unix.MOUNT_ATTR__ATIME},
	{"strictatime", unix.MOUNT_ATTR_STRICTATIME, unix.MOUNT_ATTR__ATIME},
	{"relatime", unix.MOUNT_ATTR_RELATIME, unix.MOUNT_ATTR__ATIME},
}

// ParseMount translates one entry; an option that means nothing for its type is an error.
func ParseMount(m specs.Mount) (Mount, error) {
	out := Mount{Destination: filepath.Clean(m.Destination), Type: m.Type, Source: m.Source}
	bind := m.Type == "bind"
	for _, o := range m.Options {
		bind = bind || o == "bind" || o == "rbind"
	}
	if bind {
		out.Type = "bind"
		if m.Source == "" {
			return out, fmt.Errorf("source: missing for a bind mount")
		}
	}
	if out.Type == "cgroup" {
		out.Type, out.Source = "cgroup2", "cgroup2"
	}
	switch out.Type {
	case "bind", "proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup2":
	case "":
		return out, fmt.Errorf("type: missing")
	default:
		return out, &UnsupportedError{"type", fmt.Sprintf("%q is none of bind, proc, sysfs, tmpfs, devpts, mqueue, cgroup, cgroup2", m.Type)}
	}
	for i, o := range m.Options {
		if err := out.option(o); err != nil {
			return out, fmt.Errorf("options[%d]: %w", i, err)
		}
	}
	return out, nil
}

func (m *Mount) option(o string) error {
	switch o {
	case "bind", "private", "rprivate", "defaults", "":
		return nil // every mount of the container is private
	case "rbind":
		m.Recursive = true
		return nil
	case "shared", "rshared", "slave", "rslave", "unbindable", "runbindable", "tmpcopyup", "copy-up", "idmap", "ridmap":
		return &UnsupportedError{o, "mounts are private"}
	}
	for _, a := range attrs {
		switch o {
		case a.name:
			m.Clear |= a.set | a.clear
			m.Set = m.Set&^(a.set|a.clear) | a.set
			return nil
		case "r" + a.name:
			if a.set == 0 || a.clear != 0 {
				return &UnsupportedError{o, ""}
			}
			m.SetRec |= a.set
			return nil
		}
	}
	if m.Type == "bind" {
		return fmt.Errorf("%q is no option of a bind mount", o)
	}
	if strings.ContainsRune(o, 0) {
		return fmt.Errorf("a NUL byte in %q", o)
	}
	m.Data = append(m.Data, o)
	return nil
}

// MountOptions returns the options that mean the same for every type, for features.md's mountOptions.
func MountOptions() []string {
	out := []string{"bind", "rbind", "private", "rprivate"}
	for _, a := range attrs {
		out = append(out, a.name)
		if a.set != 0 && a.clear == 0 {
			out = append(out, "r"+a.name)
		}
	}
	return out
}
