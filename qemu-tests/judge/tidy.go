package judge

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/cgroup"
)

// groups are what the suites and the containers of their tests call theirs.
var groups = []string{"runc-cgroups-integration-test", "oci-runtime/*", "frozen", "test-cgroup*"}

// tidy removes the groups that are left when a room is gone. All that was in the room has been killed, but the freezer of version 1 holds
// also the dead. Groups with somebody alive in them are not the suite's.
func tidy() {
	h, err := cgroup.Find()
	if err != nil {
		return
	}
	tops := []string{}
	if h.Unified != "" {
		tops = append(tops, h.Unified)
	}
	for _, top := range h.V1 {
		tops = append(tops, top)
	}
	for range 20 {
		left := false
		for _, top := range tops {
			for _, pattern := range append(groups, "oci-runtime") {
				dirs, _ := filepath.Glob(filepath.Join(top, pattern))
				for _, d := range dirs {
					left = left || !removeGroup(d)
				}
			}
		}
		if !left {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// removeGroup reports whether the group and those below are gone. It lets those end who have been killed.
func removeGroup(dir string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return os.IsNotExist(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			removeGroup(filepath.Join(dir, e.Name()))
		}
	}
	procs, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	for _, f := range strings.Fields(string(procs)) {
		if pid, err := strconv.Atoi(f); err == nil && killed(pid) {
			cgroup.Thaw(pid)
		}
	}
	return unix.Rmdir(dir) == nil
}

// killed reports whether SIGKILL waits for a process.
func killed(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		if key != "SigPnd" && key != "ShdPnd" {
			continue
		}
		if mask, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64); err == nil && mask&(1<<(unix.SIGKILL-1)) != 0 {
			return true
		}
	}
	return false
}
