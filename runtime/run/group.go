package run

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/proa-os/proa/runtime/cgroup"
	"github.com/proa-os/proa/runtime/spec"
)

// makeCgroup makes the container's group with its limits. Without a path and without limits the container stays in its caller's.
func (k *creation) makeCgroup() (*os.File, error) {
	p := k.spec.Linux.CgroupsPath
	if p == "" {
		if !spec.NeedsCgroup(k.spec) {
			return nil, nil
		}
		p = "/oci-runtime/" + k.c.ID
	}
	g, err := cgroup.Make(filepath.Clean("/"+p), cgroup.Controllers(k.settings))
	if err != nil {
		return nil, fmt.Errorf("linux.cgroupsPath: %w", err)
	}
	k.c.Cgroup = g.Dir
	if err := g.Set(k.settings); err != nil {
		return nil, err
	}
	if r := k.spec.Linux.Resources; r != nil && len(r.Devices) > 0 {
		program, err := cgroup.DeviceProgram(r.Devices)
		if err != nil {
			return nil, err
		}
		if err := g.SetDevices(program); err != nil {
			return nil, err
		}
	}
	f, err := g.Open()
	if err != nil {
		return nil, err
	}
	k.opened = append(k.opened, f)
	return f, nil
}
