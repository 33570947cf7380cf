package ctl

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/volume"
)

// mountOptions are those a mount of the user's may have, beside rw and ro.
var mountOptions = [...]string{"nosuid", "suid", "nodev", "noexec", "exec", "noatime", "shared", "slave", "private", "rshared", "rslave", "rprivate", "rbind", "bind", "idmap"}

// mountFields are those of --mount that have a value.
var mountFields = [...]string{"type", "source", "target", "readonly", "bind-propagation", "bind-create-src", "bind-nonrecursive", "volume-nocopy", "tmpfs-size", "tmpfs-mode"}

// addTarget adds a volume, in the place of one at the same target.
func addTarget(c *store.Container, v store.Volume) error {
	if !path.IsAbs(v.Target) || path.Clean(v.Target) == "/" {
		return fmt.Errorf("target %q: want an absolute path below /", v.Target)
	}
	v.Target = path.Clean(v.Target)
	c.Volumes = append(slices.DeleteFunc(c.Volumes, func(old store.Volume) bool { return old.Target == v.Target }), v)
	return nil
}

func addOption(v *store.Volume, o string) error {
	switch {
	case o == "ro" || o == "readonly":
		v.ReadOnly = true
	case o == "rw" || o == "z" || o == "Z": // there are no labels to give
		return nil
	case slices.Contains(mountOptions[:], o):
		v.Options = append(v.Options, o)
	default:
		return fmt.Errorf("option %q: want ro, rw, %s", o, strings.Join(mountOptions[:], ", "))
	}
	return nil
}

// addTmpfs takes CONTAINER[:OPTIONS].
func addTmpfs(c *store.Container, v string) error {
	target, options, _ := strings.Cut(v, ":")
	vol := store.Volume{Kind: "tmpfs", Target: target}
	for o := range strings.SplitSeq(options, ",") {
		name, value, _ := strings.Cut(o, "=")
		switch {
		case o == "":
		case slices.Contains([]string{"size", "mode", "uid", "gid", "nr_inodes"}, name) && value != "":
			vol.Options = append(vol.Options, o)
		default:
			if err := addOption(&vol, o); err != nil {
				return err
			}
		}
	}
	return addTarget(c, vol)
}

// addMount takes docker's comma-separated form of both.
func addMount(c *store.Container, v string) error {
	vol := store.Volume{}
	kind, create := "volume", false
	for field := range strings.SplitSeq(v, ",") {
		key, value, given := strings.Cut(field, "=")
		switch key {
		case "type":
			kind = value
		case "source", "src":
			vol.Source = value
		case "target", "dst", "destination":
			vol.Target = value
		case "readonly", "ro":
			vol.ReadOnly = !given || value == "true" || value == "1"
		case "bind-propagation":
			if err := addOption(&vol, value); err != nil {
				return err
			}
		case "bind-create-src":
			create = !given || value == "true" || value == "1"
		case "bind-nonrecursive":
			if !given || value == "true" || value == "1" {
				vol.Options = append(vol.Options, "bind")
			}
		case "volume-nocopy":
			vol.NoCopy = !given || value == "true" || value == "1"
		case "tmpfs-size":
			n, err := parseSize(value)
			if err != nil {
				return err
			}
			vol.Options = append(vol.Options, fmt.Sprintf("size=%d", n))
		case "tmpfs-mode":
			vol.Options = append(vol.Options, "mode="+value)
		default:
			if given {
				return fmt.Errorf("unknown field %q: want %s", key, strings.Join(mountFields[:], ", "))
			}
			if err := addOption(&vol, key); err != nil {
				return err
			}
		}
	}
	switch kind {
	case "bind":
		if !path.IsAbs(vol.Source) {
			return errors.New("type=bind: want source=HOST as an absolute path")
		}
		vol.Source, vol.Exists = path.Clean(vol.Source), !create
	case "tmpfs":
		if vol.Source != "" {
			return errors.New("type=tmpfs has no source")
		}
		vol.Kind = "tmpfs"
	case "volume":
		vol.Name, vol.Source = vol.Source, ""
		if vol.Name == "" {
			vol.Name = anonymousName()
		}
		if err := volume.CheckName(vol.Name); err != nil {
			return err
		}
	default:
		return fmt.Errorf("type %q: want bind, volume or tmpfs", kind)
	}
	return addTarget(c, vol)
}

// splitFrom reads a value of --volumes-from.
func splitFrom(v string) (name string, readOnly bool, err error) {
	name, mode, _ := strings.Cut(v, ":")
	switch mode {
	case "", "rw", "z", "Z":
	case "ro":
		readOnly = true
	default:
		return "", false, errors.New("want CONTAINER, CONTAINER:ro or CONTAINER:rw")
	}
	return name, readOnly, store.CheckName(name)
}

// shareVolumes adds the volumes of other containers. File systems in memory are each container's own.
func (r *runFlags) shareVolumes(c *call, k *store.Container) error {
	taken := make(map[string]bool)
	for _, v := range k.Volumes {
		taken[v.Target] = true
	}
	at := make(map[string]int) // of a target in shared: the last one counts
	var shared []store.Volume
	for _, from := range r.from {
		name, readOnly, err := splitFrom(from)
		if err != nil {
			return err
		}
		other, err := c.container(name)
		if err != nil {
			return fmt.Errorf("--volumes-from: %w", err)
		}
		for _, v := range other.Volumes {
			if v.Kind != "" || taken[v.Target] {
				continue
			}
			v.ReadOnly = v.ReadOnly || readOnly
			if i, again := at[v.Target]; again {
				shared[i] = v
				continue
			}
			at[v.Target] = len(shared)
			shared = append(shared, v)
		}
	}
	k.Volumes = append(shared, k.Volumes...)
	return nil
}
