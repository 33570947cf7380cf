// Package cgroup makes a container's control group and sets its limits: linux.cgroupsPath and linux.resources of config.json on the
// unified hierarchy (cgroup v2), on version 1, and on hybrid hosts, which have both.
//
// oci-runtime (package run) calls it before the container's first process is made, which is then born in the group, or, where version 1
// has controllers, is moved there before it does anything. Settings and SettingsV1 are the decision, which files get which values; Group
// is the edge. Devices on version 2 are a program of the kernel (eBPF) on the group, as there are no files for them: package cgroup
// compiles the rules to it. On a hybrid host limits are version 1's, and the group of version 2 is what freezes and kills.
//
// What only version 1 can do (memory.kernel, memory.swappiness, memory.disableOOMKiller, cpu.realtime*, network) is an error that names
// the field on version 2, and unified is one on version 1. cpu.shares and blockIO weights are converted to version 2's scale.
//
// Specification: runtime-spec config-linux.md, "Control groups"; the kernel's admin-guide/cgroup-v2.rst and cgroup-v1.
package cgroup

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Group is a container's directory in each hierarchy of the host.
type Group struct {
	Dir string            // on cgroup2; "" if that is not mounted
	V1  map[string]string // on version 1, by controller; empty where there is only version 2
}

// Of returns the group a process is in.
func Of(pid int) (Group, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return Group{}, err
	}
	h, err := Find()
	if err != nil {
		return Group{}, err
	}
	var g Group
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 || strings.Contains("/"+f[2]+"/", "/../") {
			continue // outside of this process's cgroup namespace
		}
		if f[1] == "" {
			if h.Unified != "" {
				g.Dir = filepath.Join(h.Unified, f[2])
			}
			continue
		}
		for _, c := range strings.Split(f[1], ",") {
			if top, ok := h.V1[c]; ok {
				g.set(c, filepath.Join(top, f[2]))
			}
		}
	}
	if g.Empty() {
		return Group{}, fmt.Errorf("process %d is in no group that can be seen from here", pid)
	}
	return g, nil
}

// PathOf returns the path of a process's group below the mount that systemd manages: cgroup2, or name=systemd.
func PathOf(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", err
	}
	unified := ""
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) == 3 && f[1] == "" {
			unified = f[2]
		}
		if len(f) == 3 && f[1] == "name=systemd" && f[2] != "/" {
			return f[2], nil
		}
	}
	if unified == "" {
		return "", fmt.Errorf("process %d is in no group that systemd manages", pid)
	}
	return unified, nil
}

func (g *Group) set(controller, dir string) {
	if g.V1 == nil {
		g.V1 = make(map[string]string)
	}
	g.V1[controller] = dir
}

// Empty reports whether there is no group.
func (g Group) Empty() bool { return g.Dir == "" && len(g.V1) == 0 }

// String names the group for people.
func (g Group) String() string {
	if d := g.dirs(); len(d) > 0 {
		return d[0]
	}
	return "no group"
}

// dirs are all directories, each once: controllers can share a hierarchy.
func (g Group) dirs() []string {
	var out []string
	if g.Dir != "" {
		out = append(out, g.Dir)
	}
	for _, c := range slices.Sorted(maps.Keys(g.V1)) {
		if !slices.Contains(out, g.V1[c]) {
			out = append(out, g.V1[c])
		}
	}
	return out
}

// Make makes the group at an absolute path below each mount, and lets it have the controllers that are needed. An existing group
// must be empty, as its processes would be the container's and be killed with it, and not frozen, as the container would never get to its
// start. What was made before an error is in the Group.
func Make(path string, controllers []string) (Group, error) {
	g, fresh, err := complete(path, controllers)
	if err != nil || fresh {
		return g, err
	}
	if pids, err := g.Pids(); err != nil {
		return g, err
	} else if len(pids) > 0 {
		return Group{}, fmt.Errorf("group %s has %d processes already: choose another path", g, len(pids))
	}
	for _, one := range []Group{{Dir: g.Dir}, {V1: g.V1}} { // a hybrid host has two freezers
		if !one.Empty() && one.Frozen() {
			return Group{}, fmt.Errorf("group %s is frozen: thaw it, or choose another path", one)
		}
	}
	return g, nil
}

// Complete is Make for a group in which there may be processes already.
func Complete(path string, controllers []string) (Group, error) {
	g, _, err := complete(path, controllers)
	return g, err
}

// complete also reports whether no directory of the group was there before.
func complete(path string, controllers []string) (g Group, fresh bool, err error) {
	h, err := Find()
	if err != nil {
		return Group{}, false, err
	}
	fresh = true
	if h.Unified != "" {
		g.Dir = filepath.Join(h.Unified, path)
		at := h.Unified
		for _, name := range strings.Split(strings.Trim(path, "/"), "/") {
			// A controller that is not there, or whose parent has processes of its own, is told by the setting that needs it.
			for _, c := range controllers {
				write(filepath.Join(at, "cgroup.subtree_control"), "+"+c)
			}
			at = filepath.Join(at, name)
			if err := makeDir(at); err == unix.EEXIST {
				fresh = fresh && at != g.Dir
			} else if err != nil {
				return g, false, &os.PathError{Op: "make group", Path: at, Err: err}
			}
		}
	}
	for c, top := range h.V1 {
		g.set(c, filepath.Join(top, path))
		at := top
		for _, name := range strings.Split(strings.Trim(path, "/"), "/") {
			below := filepath.Join(at, name)
			if err := makeDir(below); err == unix.EEXIST {
				fresh = fresh && below != g.V1[c]
			} else if err != nil {
				return g, false, &os.PathError{Op: "make group", Path: below, Err: err}
			}
			if c == "cpuset" {
				if err := inheritCpuset(at, below); err != nil {
					return g, false, err
				}
			}
			at = below
		}
	}
	return g, fresh, nil
}

func makeDir(dir string) error { return unix.Mkdir(dir, 0o755) }

// inheritCpuset gives a new group of version 1 the processors and nodes of its parent: one without any takes no process.
func inheritCpuset(parent, dir string) error {
	for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
		has, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil || strings.TrimSpace(string(has)) != "" {
			continue // mounted with noprefix, which nobody does; or set already
		}
		value, err := os.ReadFile(filepath.Join(parent, f))
		if err == nil {
			err = write(filepath.Join(dir, f), strings.TrimSpace(string(value)))
		}
		if err != nil {
			return fmt.Errorf("take %s from %s: %w", f, parent, err)
		}
	}
	return nil
}

// Open opens the group on version 2 for CLONE_INTO_CGROUP; nil if there is none.
func (g Group) Open() (*os.File, error) {
	if g.Dir == "" {
		return nil, nil
	}
	fd, err := unix.Open(g.Dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open group", Path: g.Dir, Err: err}
	}
	return os.NewFile(uintptr(fd), g.Dir), nil
}

// Add moves a process into the group on version 1; on version 2 it was born there.
func (g Group) Add(pid int) error {
	for _, dir := range (Group{V1: g.V1}).dirs() {
		if err := write(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("move process %d into group %s: %w", pid, dir, err)
		}
	}
	return nil
}

// file is where a setting goes.
func (g Group) file(name string) string {
	controller, _, _ := strings.Cut(name, ".")
	if dir, ok := g.V1[controller]; ok {
		return filepath.Join(dir, name)
	}
	if len(g.V1) > 0 {
		return "" // version 1 has the other names, and none of its hierarchies the controller
	}
	return filepath.Join(g.Dir, name)
}

// Set writes values. One that the kernel finds invalid beside what another one still is, such as a limit for memory above that for
// memory and swap, is tried again behind the others.
func (g Group) Set(settings []Setting) error {
	var again []Setting
	for _, s := range settings {
		err := g.setOne(s)
		if errors.Is(err, unix.EINVAL) && len(g.V1) > 0 {
			again = append(again, s)
			continue
		}
		if err != nil {
			return err
		}
	}
	for _, s := range again {
		if err := g.setOne(s); err != nil {
			return err
		}
	}
	return nil
}

func (g Group) setOne(s Setting) error {
	err := error(unix.ENOENT)
	if file := g.file(s.File); file != "" {
		err = write(file, s.Value)
	}
	if other := g.file(s.ElseFile); errors.Is(err, unix.ENOENT) && s.ElseFile != "" && other != "" {
		if err = write(other, s.ElseValue); !errors.Is(err, unix.ENOENT) {
			s.File, s.Value = s.ElseFile, s.ElseValue // for the error
		}
	}
	if errors.Is(err, unix.ENOENT) {
		if s.Optional {
			return nil
		}
		return fmt.Errorf("%s: the controller of %s is not available in %s", s.Field, s.File, g)
	}
	if err != nil {
		return fmt.Errorf("%s: set %s to %q: %w", s.Field, s.File, s.Value, err)
	}
	return nil
}

// write writes a value at once, by plain calls.
func write(file, value string) error {
	fd, err := unix.Open(file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(value))
	return err
}
