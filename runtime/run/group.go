package run

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/proa-os/proa/runtime/cgroup"
	"github.com/proa-os/proa/runtime/scope"
	"github.com/proa-os/proa/runtime/spec"
)

// settings translates linux.resources for the version of cgroups that this host sets limits with.
func settings(r *specs.LinuxResources) ([]cgroup.Setting, error) {
	if r == nil {
		return nil, nil
	}
	if h, err := cgroup.Find(); err == nil && h.Old() {
		return cgroup.SettingsV1(r)
	}
	return cgroup.Settings(r)
}

// makeCgroup makes the container's group with its limits. Without a path and without limits the container stays in its caller's.
func (k *creation) makeCgroup() (*os.File, error) {
	p := k.spec.Linux.CgroupsPath
	if k.options.Systemd {
		u, err := scope.ParseUnit(p, k.c.ID)
		if err != nil {
			return nil, err
		}
		k.scope = &u
		return nil, nil
	}
	if p = groupPath(k.spec, k.c.ID); p == "" {
		return nil, nil
	}
	g, err := cgroup.Make(p, cgroup.Controllers(k.settings))
	k.c.Cgroup, k.c.CgroupV1 = g.Dir, g.V1
	if err != nil {
		return nil, fmt.Errorf("linux.cgroupsPath: %w", err)
	}
	f, err := g.Open()
	if err != nil {
		return nil, err
	}
	if f != nil {
		k.opened = append(k.opened, f)
	}
	return f, k.limit(g, f)
}

// groupPath is where the group of a container is that no systemd makes, or "".
func groupPath(s *specs.Spec, id string) string {
	p := s.Linux.CgroupsPath
	if p == "" {
		if !spec.NeedsCgroup(s) {
			return ""
		}
		p = "/oci-runtime/" + id
	}
	return filepath.Clean("/" + p)
}

// claimGroup finds the group of a container whose creation was killed before it was written down. Make takes none that somebody is in, and
// the first process of such a container ends when it sees that its maker has gone.
func (c *Container) claimGroup() {
	s, err := c.config()
	if err != nil {
		return
	}
	p := groupPath(s, c.ID)
	if p == "" {
		return
	}
	for range 100 {
		g, err := cgroup.Make(p, nil)
		if c.Cgroup, c.CgroupV1 = g.Dir, g.V1; err == nil {
			return
		}
		c.Cgroup, c.CgroupV1 = "", nil
		time.Sleep(5 * time.Millisecond)
	}
}

// limit sets the limits of the container's group, which is open as dir on version 2.
func (k *creation) limit(g cgroup.Group, dir *os.File) error {
	list := k.settings
	if !g.HasDevices() {
		list = cgroup.WithoutDevices(list)
	}
	if err := g.Set(list); err != nil {
		return err
	}
	if r := k.spec.Linux.Resources; r != nil && len(r.Devices) > 0 && !g.HasDevices() {
		program, err := cgroup.DeviceProgram(r.Devices)
		if err != nil {
			return err
		}
		return cgroup.SetDevices(dir, program)
	}
	return nil
}

// moved reports whether the first process is not born in its group but moved there, before it does anything.
func (k *creation) moved() bool { return len(k.c.CgroupV1) > 0 || k.scope != nil }

// moveIn moves it.
func (k *creation) moveIn() error {
	if !k.moved() {
		return nil
	}
	if k.scope != nil {
		if err := k.startScope(); err != nil {
			return err
		}
	}
	g, err := k.c.group()
	if err != nil {
		return err
	}
	if err := g.Add(k.child.proc.Pid); err != nil {
		return fmt.Errorf("linux.cgroupsPath: %w", err)
	}
	return k.child.tell()
}

// startScope has systemd make the container's scope with the first process in it, and sets those limits that systemd knows nothing of.
func (k *creation) startScope() error {
	pid := k.child.proc.Pid
	if err := scope.Start(*k.scope, k.c.ID, pid, k.spec.Linux.Resources, k.spec.Annotations); err != nil {
		return fmt.Errorf("linux.cgroupsPath: %w", err)
	}
	k.c.Scope = k.scope.Name
	at, err := cgroup.PathOf(pid)
	if err == nil && path.Base(at) != k.scope.Name {
		err = fmt.Errorf("systemd has left process %d in %s: is it another machine's?", pid, at)
	}
	if err != nil {
		return fmt.Errorf("linux.cgroupsPath: %w", err)
	}
	g, err := cgroup.Complete(at, cgroup.Controllers(k.settings))
	k.c.Cgroup, k.c.CgroupV1 = g.Dir, g.V1
	if err != nil {
		return fmt.Errorf("linux.cgroupsPath: %w", err)
	}
	dir, err := g.Open()
	if err != nil {
		return err
	}
	if dir != nil {
		defer dir.Close()
	}
	return k.limit(g, dir)
}
