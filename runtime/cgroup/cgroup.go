// Package cgroup makes a container's control group and sets its limits: linux.cgroupsPath and linux.resources of config.json on the
// unified hierarchy (cgroup v2).
//
// oci-runtime (package run) calls it before the container's first process is made, which is then born in the group. Settings is the
// decision, which files get which values; Group is the edge. Devices are a program of the kernel (eBPF) on the group, as version 2 has
// no files for them: package cgroup compiles the rules to it.
//
// What only version 1 can do (memory.kernel, memory.swappiness, memory.disableOOMKiller, cpu.realtime*, network) is an error that names
// the field. cpu.shares and blockIO weights are converted to version 2's scale.
//
// Specification: runtime-spec config-linux.md, "Control groups"; the kernel's admin-guide/cgroup-v2.rst.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Mount finds the cgroup2 hierarchy: /sys/fs/cgroup on a machine of today.
func Mount() (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &st); err == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		return "/sys/fs/cgroup", nil
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		before, after, ok := strings.Cut(line, " - ")
		if f := strings.Fields(before); ok && len(f) >= 5 && strings.HasPrefix(after, "cgroup2 ") {
			return f[4], nil
		}
	}
	return "", errors.New("no cgroup2 file system is mounted")
}

// A Group is a directory of the hierarchy.
type Group struct{ Dir string }

// Of returns the group a process is in.
func Of(pid int) (Group, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return Group{}, err
	}
	for line := range strings.Lines(string(b)) {
		if p, ok := strings.CutPrefix(line, "0::"); ok {
			mount, err := Mount()
			if err != nil {
				return Group{}, err
			}
			return Group{filepath.Join(mount, strings.TrimSpace(p))}, nil
		}
	}
	return Group{}, fmt.Errorf("process %d is in no cgroup2 group", pid)
}

// Make makes the group at an absolute path below the mount, and lets it have the controllers that are needed. An existing group
// must be empty: its processes would be the container's, and would be killed with it.
func Make(path string, controllers []string) (Group, error) {
	mount, err := Mount()
	if err != nil {
		return Group{}, err
	}
	g := Group{filepath.Join(mount, path)}
	at := mount
	for _, name := range strings.Split(strings.Trim(path, "/"), "/") {
		// A controller that is not there, or whose parent has processes of its own, is told by the setting that needs it.
		for _, c := range controllers {
			write(filepath.Join(at, "cgroup.subtree_control"), "+"+c)
		}
		at = filepath.Join(at, name)
		if err := unix.Mkdir(at, 0o755); err != nil && err != unix.EEXIST {
			return Group{}, &os.PathError{Op: "make group", Path: at, Err: err}
		}
	}
	if pids, err := g.Pids(); err != nil {
		return Group{}, err
	} else if len(pids) > 0 {
		return Group{}, fmt.Errorf("group %s has %d processes already: choose another path", g.Dir, len(pids))
	}
	return g, nil
}

// Open opens the group for CLONE_INTO_CGROUP.
func (g Group) Open() (*os.File, error) {
	fd, err := unix.Open(g.Dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open group", Path: g.Dir, Err: err}
	}
	return os.NewFile(uintptr(fd), g.Dir), nil
}

// Set writes values.
func (g Group) Set(settings []Setting) error {
	for _, s := range settings {
		err := write(filepath.Join(g.Dir, s.File), s.Value)
		if errors.Is(err, unix.ENOENT) {
			if s.Optional {
				continue
			}
			return fmt.Errorf("%s: the controller of %s is not available in %s", s.Field, s.File, g.Dir)
		}
		if err != nil {
			return fmt.Errorf("%s: set %s to %q: %w", s.Field, s.File, s.Value, err)
		}
	}
	return nil
}

// Pids lists the processes of the group and of those below.
func (g Group) Pids() ([]int, error) {
	var pids []int
	err := filepath.WalkDir(g.Dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(p, "cgroup.procs"))
		if errors.Is(err, unix.EOPNOTSUPP) { // threaded
			return nil
		}
		if err != nil {
			return err
		}
		for _, f := range strings.Fields(string(b)) {
			n, err := strconv.Atoi(f)
			if err != nil {
				return err
			}
			pids = append(pids, n)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list processes of %s: %w", g.Dir, err)
	}
	return pids, nil
}

// Kill kills what is in the group.
func (g Group) Kill() error {
	err := write(filepath.Join(g.Dir, "cgroup.kill"), "1")
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// Frozen reports whether Freeze was asked for.
func (g Group) Frozen() bool {
	b, err := os.ReadFile(filepath.Join(g.Dir, "cgroup.freeze"))
	return err == nil && strings.TrimSpace(string(b)) == "1"
}

// Freeze stops all processes of the group, or lets them go on, and waits until it is so.
func (g Group) Freeze(on bool) error {
	value := "0"
	if on {
		value = "1"
	}
	if err := write(filepath.Join(g.Dir, "cgroup.freeze"), value); err != nil {
		return fmt.Errorf("freeze %s: %w", g.Dir, err)
	}
	for range 500 {
		b, err := os.ReadFile(filepath.Join(g.Dir, "cgroup.events"))
		if err != nil {
			return fmt.Errorf("freeze %s: %w", g.Dir, err)
		}
		if strings.Contains(string(b), "frozen "+value) {
			return nil
		}
		time.Sleep(2 * time.Millisecond)
	}
	return fmt.Errorf("freeze %s: it does not become frozen %s", g.Dir, value)
}

// Remove kills what is in the group and removes it with the groups below. A group that is not there is no error.
func (g Group) Remove() error {
	if err := g.Kill(); err != nil {
		return fmt.Errorf("end processes of %s: %w", g.Dir, err)
	}
	if g.Frozen() {
		write(filepath.Join(g.Dir, "cgroup.freeze"), "0")
	}
	var err error
	for range 500 { // killed processes leave after a moment
		if err = removeTree(g.Dir); err == nil || err == unix.ENOENT {
			return nil
		}
		if err != unix.EBUSY {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("remove group %s: %w", g.Dir, err)
}

// removeTree removes a directory whose files are the kernel's.
func removeTree(dir string) error {
	err := unix.Rmdir(dir)
	if err != unix.EBUSY {
		return err
	}
	es, rerr := os.ReadDir(dir)
	if rerr != nil {
		return err
	}
	for _, e := range es {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return unix.Rmdir(dir)
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
