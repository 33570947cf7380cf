package run

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/cgroup"
	"github.com/proa-os/proa/runtime/scope"
	"github.com/proa-os/proa/runtime/spec"
)

// group returns the container's own cgroup.
func (c *Container) group() (cgroup.Group, error) {
	g := cgroup.Group{Dir: c.Cgroup, V1: c.CgroupV1}
	if g.Empty() {
		return cgroup.Group{}, fmt.Errorf("container %s has no cgroup of its own: set linux.cgroupsPath", c.ID)
	}
	return g, nil
}

// Pause freezes the container's processes; with on false it lets them go on.
func (c *Container) Pause(on bool) error {
	want, verb := specs.StateRunning, "pause"
	if !on {
		want, verb = StatePaused, "resume"
	}
	if c.Status != want && !(on && c.Status == specs.StateCreated) {
		return fmt.Errorf("%s %s: it is %s", verb, c.ID, c.Status)
	}
	g, err := c.group()
	if err != nil {
		return err
	}
	return g.Freeze(on)
}

// Update changes the limits of a container.
func (c *Container) Update(r *specs.LinuxResources) error {
	if c.Status == specs.StateStopped || c.Status == specs.StateCreating {
		return fmt.Errorf("update %s: it is %s", c.ID, c.Status)
	}
	if len(r.Devices) > 0 {
		return fmt.Errorf("update %s: linux.resources.devices cannot be changed", c.ID)
	}
	g, err := c.group()
	if err != nil {
		return err
	}
	if cpu := r.CPU; cpu != nil && cpu.Period != nil && cpu.Quota == nil {
		if cpu.Quota, err = g.Quota(); err != nil {
			return fmt.Errorf("linux.resources.cpu.period: %w", err)
		}
	}
	list, err := settings(r)
	if err != nil {
		return err
	}
	if m := r.Memory; m != nil && m.CheckBeforeUpdate != nil && *m.CheckBeforeUpdate && m.Limit != nil && *m.Limit > 0 {
		used, err := g.MemoryUsed()
		if err != nil {
			return fmt.Errorf("linux.resources.memory.checkBeforeUpdate: %w", err)
		}
		if used > *m.Limit {
			return fmt.Errorf("linux.resources.memory.limit: %d is below the %d bytes in use, and checkBeforeUpdate is set", *m.Limit, used)
		}
	}
	if c.Scope != "" {
		if err := scope.Update(c.Scope, r); err != nil {
			return err
		}
	}
	return g.Set(list)
}

// Processes lists the container's processes by their pids outside.
func (c *Container) Processes() ([]int, error) {
	g, err := c.group()
	if err != nil {
		return c.ofNamespace()
	}
	return g.Pids()
}

// ofNamespace lists the processes in the pid namespace of a container that has it, but no group, for itself.
func (c *Container) ofNamespace() ([]int, error) {
	if c.Status == specs.StateStopped {
		return nil, nil
	}
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return nil, err
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", c.Pid))
	if err != nil {
		return nil, fmt.Errorf("list processes of %s: %w", c.ID, err)
	}
	if own == theirs {
		return nil, fmt.Errorf("container %s has neither a cgroup nor a pid namespace of its own: set linux.cgroupsPath", c.ID)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid)); err == nil && ns == theirs {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

// killGroup kills what is left of a container that has no pid namespace of its own: there the end of the first process is not that of the
// others, which may be all that is left. It reports whether there was something to kill.
func (c *Container) killGroup() (bool, error) {
	g, err := c.group()
	if err != nil {
		return false, nil
	}
	s, err := c.config()
	if err != nil {
		return false, err
	}
	ns, err := spec.Namespaces(s.Linux.Namespaces)
	if err != nil || isNew(ns[specs.PIDNamespace]) {
		return false, err
	}
	pids, err := g.Pids()
	if errors.Is(err, unix.ENOENT) || err == nil && len(pids) == 0 {
		return false, nil
	}
	if err == nil {
		err = g.Kill()
	}
	if err != nil {
		return false, fmt.Errorf("kill %s: %w", c.ID, err)
	}
	return true, nil
}

// SignalAll sends a signal to all processes of the container. Where these share the caller's pid namespace, ending the first one does not
// end them.
func (c *Container) SignalAll(sig unix.Signal) error {
	if _, err := c.group(); err != nil {
		return c.Signal(sig)
	}
	pids, err := c.Processes()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, sig); err != nil && err != unix.ESRCH {
			return fmt.Errorf("signal process %d of %s: %w", pid, c.ID, err)
		}
	}
	return nil
}
