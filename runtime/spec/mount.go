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
	Later       uint64   // tmpfs: those of them that it gets when all places below are made
	SetRec      uint64   // MOUNT_ATTR_* of this mount and all below
	ClearRec    uint64   // those that are taken from this mount and all below
	Propagation []uint64 // MS_PRIVATE, MS_SLAVE, ... in order, with MS_REC for all below
	CopyUp      bool     // tmpfs: with what was at Destination
	IDMap       bool     // with the ids that UIDs and GIDs say; without these the container's own maps
	IDMapRec    bool     // the same for all below
	UIDs, GIDs  []specs.LinuxIDMapping
	Data        []string // key or key=value for the file system
}

// propagations are the words of mount(8) for mount_namespaces(7).
var propagations = [...]struct {
	name string
	flag uint64
}{{"private", unix.MS_PRIVATE}, {"shared", unix.MS_SHARED}, {"slave", unix.MS_SLAVE}, {"unbindable", unix.MS_UNBINDABLE}}

// Propagation returns the flags of a word such as rslave.
func Propagation(word string) (uint64, bool) {
	deep, recursive := strings.CutPrefix(word, "r")
	for _, p := range propagations {
		switch {
		case p.name == word:
			return p.flag, true
		case recursive && p.name == deep:
			return p.flag | unix.MS_REC, true
		}
	}
	return 0, false
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
	{"atime", unix.MOUNT_ATTR_RELATIME, unix.MOUNT_ATTR__ATIME},
	{"norelatime", unix.MOUNT_ATTR_STRICTATIME, unix.MOUNT_ATTR__ATIME},
	{"nostrictatime", unix.MOUNT_ATTR_RELATIME, unix.MOUNT_ATTR__ATIME},
}

// Destination is the place of a mount in the container. A relative one, as old configurations have it, is seen from / (config.md, "mounts").
func Destination(m specs.Mount) string { return filepath.Clean("/" + m.Destination) }

// ParseMount translates one entry; an option that means nothing for its type is an error.
func ParseMount(m specs.Mount) (Mount, error) {
	out := Mount{Destination: Destination(m), Type: m.Type, Source: m.Source, UIDs: m.UIDMappings, GIDs: m.GIDMappings}
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
	if out.Type == "" || strings.ContainsRune(out.Type+out.Source+out.Destination, 0) {
		return out, fmt.Errorf("type: missing")
	}
	for i, o := range m.Options {
		if err := out.option(o); err != nil {
			return out, fmt.Errorf("options[%d]: %w", i, err)
		}
	}
	if (len(out.UIDs) == 0) != (len(out.GIDs) == 0) {
		return out, fmt.Errorf("uidMappings and gidMappings: want both or none")
	}
	out.IDMap = out.IDMap || len(out.UIDs) > 0
	if out.IDMap && out.Type != "bind" {
		return out, &UnsupportedError{"uidMappings", "only for bind mounts"}
	}
	if out.Type == "tmpfs" {
		out.Later = (out.Set | out.SetRec) & unix.MOUNT_ATTR_RDONLY
		out.Set, out.SetRec = out.Set&^out.Later, out.SetRec&^out.Later
	}
	if out.CopyUp && out.Type != "tmpfs" {
		return out, fmt.Errorf("options: tmpcopyup is for tmpfs, not for %s", out.Type)
	}
	return out, nil
}

func (m *Mount) option(o string) error {
	switch o {
	case "bind", "defaults", "", "async", "loud", "silent", "mand", "nomand", "iversion", "noiversion", "nolazytime":
		return nil // the kernel's defaults, or without a meaning to it any more
	case "rbind":
		m.Recursive = true
		return nil
	case "tmpcopyup", "copy-up":
		m.CopyUp = true
		return nil
	case "idmap", "ridmap":
		m.IDMap, m.IDMapRec = true, o == "ridmap"
		return nil
	}
	if p, ok := Propagation(o); ok {
		m.Propagation = append(m.Propagation, p)
		return nil
	}
	deep, recursive := strings.CutPrefix(o, "r")
	for _, a := range attrs {
		switch {
		case a.name == o:
			m.Clear |= a.set | a.clear
			m.Set = m.Set&^(a.set|a.clear) | a.set
			return nil
		case recursive && a.name == deep:
			m.ClearRec |= a.set | a.clear
			m.SetRec = m.SetRec&^(a.set|a.clear) | a.set
			return nil
		}
	}
	if m.Type == "bind" {
		// A bind mount has the file system's options already. The kernel ignores these, and so do others; a single word that is not
		// known may be a mistyped "ro".
		if _, _, ok := strings.Cut(o, "="); ok {
			return nil
		}
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
	out := []string{"bind", "rbind", "defaults", "tmpcopyup", "copy-up", "idmap", "ridmap"}
	for _, p := range propagations {
		out = append(out, p.name, "r"+p.name)
	}
	for _, a := range attrs {
		out = append(out, a.name, "r"+a.name)
	}
	return out
}
