package run

import (
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/cgroup"
	"github.com/proa-os/proa/runtime/spec"
)

// On a host of cgroup v1 a mount of type cgroup is a directory of hierarchies (config-linux.md, "Control groups"): a tmpfs with one mount for
// each, named as on the host, and links for controllers that share one. The container sees its own group in each of them. This is for
// such hosts alone; on others the type means cgroup2.

// A hierarchy is one of the mounts in that directory.
type hierarchy struct {
	controllers []string // "" alone for cgroup2
	top         string   // on the host
}

// hierarchies returns them in order, and none on a host where limits are not version 1's.
func hierarchies() ([]hierarchy, error) {
	h, err := cgroup.Find()
	if err != nil || !h.Old() {
		return nil, err
	}
	byTop := make(map[string][]string)
	for _, c := range slices.Sorted(maps.Keys(h.V1)) {
		byTop[h.V1[c]] = append(byTop[h.V1[c]], c)
	}
	var out []hierarchy
	for _, top := range slices.Sorted(maps.Keys(byTop)) {
		out = append(out, hierarchy{byTop[top], top})
	}
	if h.Unified != "" {
		out = append(out, hierarchy{[]string{""}, h.Unified})
	}
	return out, nil
}

// legacyCgroups replaces mounts of type cgroup. The mounts inside come last, so that the others keep their numbers; k.controllers says
// which hierarchy each of them is.
func (k *creation) legacyCgroups() error {
	list := []hierarchy(nil)
	for i, m := range k.spec.Mounts {
		if m.Type != "cgroup" || k.mounts[i].Type == "bind" && k.mounts[i].Source != "" {
			continue
		}
		if list == nil {
			var err error
			if list, err = hierarchies(); err != nil || list == nil {
				return err
			}
			k.controllers = make(map[int]hierarchy)
		}
		options := slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return strings.Contains(o, "=") })
		directory, err := spec.ParseMount(specs.Mount{Destination: m.Destination, Type: "tmpfs", Source: "cgroup", Options: append(options, "mode=755", "size=64k")})
		if err != nil {
			return fmt.Errorf("mounts[%d] (%s): %w", i, m.Destination, err)
		}
		k.mounts[i] = directory
		for _, h := range list {
			inside, err := spec.ParseMount(specs.Mount{Destination: path.Join(m.Destination, filepath.Base(h.top)), Type: "bind", Source: h.top, Options: options})
			if err != nil {
				return fmt.Errorf("mounts[%d] (%s): %w", i, m.Destination, err)
			}
			k.controllers[len(k.mounts)] = h
			k.mounts = append(k.mounts, inside)
		}
	}
	return nil
}

// groupSource is the directory of the host that mount i shows: the container's own group, if it has one.
func (k *creation) groupSource(i int) (string, bool) {
	h, ok := k.controllers[i]
	if !ok {
		return "", false
	}
	own := k.c.CgroupV1[h.controllers[0]]
	if h.controllers[0] == "" {
		own = k.c.Cgroup
	}
	if own == "" {
		own = h.top
	}
	return own, true
}

// linkControllers makes the links for controllers that do not have a hierarchy of their own name.
func (k *creation) linkControllers(root int) error {
	for i, h := range k.controllers {
		dir, name := path.Split(k.mounts[i].Destination)
		for _, c := range h.controllers {
			if c == "" || c == name || strings.HasPrefix(c, "name=") {
				continue
			}
			at, err := openInRoot(root, dir, 0)
			if err != nil {
				return fmt.Errorf("link %s in %s: %w", c, dir, err)
			}
			err = unix.Symlinkat(name, at, c)
			unix.Close(at)
			if err != nil && err != unix.EEXIST {
				return fmt.Errorf("link %s in %s: %w", c, dir, err)
			}
		}
	}
	return nil
}
