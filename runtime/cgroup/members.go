package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// MemoryUsed returns how many bytes of memory the group uses.
func (g Group) MemoryUsed() (int64, error) {
	name := "memory.current"
	if len(g.V1) > 0 {
		name = "memory.usage_in_bytes"
	}
	b, err := os.ReadFile(g.file(name))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

// Quota returns how many microseconds of a period the group may use on version 2, where a period is not written without; nil for no limit,
// and on version 1, which has a file for each.
func (g Group) Quota() (*int64, error) {
	if g.Dir == "" || len(g.V1) > 0 {
		return nil, nil
	}
	b, err := os.ReadFile(filepath.Join(g.Dir, "cpu.max"))
	if errors.Is(err, unix.ENOENT) {
		return nil, nil // Set tells it
	}
	if err != nil {
		return nil, err
	}
	quota, _, _ := strings.Cut(string(b), " ")
	if quota == "max" {
		return nil, nil
	}
	n, err := strconv.ParseInt(quota, 10, 64)
	return &n, err
}

// Pids lists the processes of the group and of those below.
func (g Group) Pids() ([]int, error) {
	var pids []int
	for _, dir := range g.dirs() {
		more, err := pidsBelow(dir)
		if err != nil {
			return nil, fmt.Errorf("list processes of %s: %w", dir, err)
		}
		pids = append(pids, more...)
		if dir == g.Dir {
			break // a process may have left single groups of version 1, but not this one unseen
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

func pidsBelow(dir string) ([]int, error) {
	var pids []int
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
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
	return pids, err
}

// Kill kills what is in the group.
func (g Group) Kill() error {
	if g.Dir != "" {
		err := write(filepath.Join(g.Dir, "cgroup.kill"), "1")
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
			return nil
		}
		return err
	}
	pids, err := g.Pids()
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	for _, pid := range pids {
		unix.Kill(pid, unix.SIGKILL) // Remove comes back to those that are new
		Thaw(pid)
	}
	return err
}

// Thaw lets a process that has been killed end: the freezer of version 1 holds also those. On version 2 they end anyhow.
func Thaw(pid int) {
	g, err := Of(pid)
	if err != nil || g.V1["freezer"] == "" {
		return
	}
	one := Group{V1: map[string]string{"freezer": g.V1["freezer"]}}
	if one.Frozen() {
		file, value := one.freezer(false)
		write(file, value)
	}
}

// Frozen reports whether Freeze was asked for.
func (g Group) Frozen() bool {
	file, value := g.freezer(true)
	b, err := os.ReadFile(file)
	got := strings.TrimSpace(string(b))
	return err == nil && (got == value || got == "FREEZING")
}

// freezer returns the file that freezes the group and what is to be written there.
func (g Group) freezer(on bool) (file, value string) {
	if g.Dir == "" {
		if on {
			return g.file("freezer.state"), "FROZEN"
		}
		return g.file("freezer.state"), "THAWED"
	}
	if on {
		return filepath.Join(g.Dir, "cgroup.freeze"), "1"
	}
	return filepath.Join(g.Dir, "cgroup.freeze"), "0"
}

// Freeze stops all processes of the group, or lets them go on, and waits until it is so.
func (g Group) Freeze(on bool) error {
	file, value := g.freezer(on)
	if err := write(file, value); err != nil {
		return fmt.Errorf("freeze %s: %w", g, err)
	}
	watch, want := file, value
	if g.Dir != "" {
		watch, want = filepath.Join(g.Dir, "cgroup.events"), "frozen "+value
	}
	for range 500 {
		b, err := os.ReadFile(watch)
		if err != nil {
			return fmt.Errorf("freeze %s: %w", g, err)
		}
		if strings.Contains(string(b), want) {
			return nil
		}
		time.Sleep(2 * time.Millisecond)
		if g.Dir == "" {
			write(file, value) // processes that were being made escape the freezer of version 1
		}
	}
	return fmt.Errorf("freeze %s: it does not become %s", g, want)
}

// Remove kills what is in the group and removes it with the groups below. A group that is not there is no error.
func (g Group) Remove() error {
	if len(g.V1) == 0 && unix.Rmdir(g.Dir) == nil {
		return nil // there was nothing in it
	}
	if err := g.Kill(); err != nil {
		return fmt.Errorf("end processes of %s: %w", g, err)
	}
	if g.Frozen() {
		file, value := g.freezer(false)
		write(file, value)
	}
	for _, dir := range g.dirs() {
		if err := g.removeDir(dir); err != nil {
			return err
		}
	}
	return nil
}

func (g Group) removeDir(dir string) error {
	var err error
	for n := range 500 { // killed processes leave after a moment
		if err = removeTree(dir); err == nil || err == unix.ENOENT {
			return nil
		}
		if err != unix.EBUSY {
			break
		}
		if n%20 == 19 {
			g.Kill()
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("remove group %s: %w", dir, err)
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
