package cgroup

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Hierarchies are where groups can be made.
type Hierarchies struct {
	Unified string            // mount point of cgroup2, or ""
	V1      map[string]string // mount points of version 1 by controller; name=systemd and the like are among them
}

// Find finds the host's hierarchies.
func Find() (Hierarchies, error) {
	const usual = "/sys/fs/cgroup"
	var st unix.Statfs_t
	if err := unix.Statfs(usual, &st); err == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		return Hierarchies{Unified: usual}, nil
	}
	b, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return Hierarchies{}, err
	}
	h := parseMountinfo(string(b))
	if h.Unified == "" && len(h.V1) == 0 {
		return h, errors.New("no cgroup file system is mounted")
	}
	return h, nil
}

// Old reports whether limits are set on version 1.
func (h Hierarchies) Old() bool {
	for c := range h.V1 {
		if !strings.HasPrefix(c, "name=") {
			return true
		}
	}
	return false
}

// parseMountinfo reads proc_pid_mountinfo(5). Of several mounts of a hierarchy the first one that shows its root counts.
func parseMountinfo(text string) Hierarchies {
	var h Hierarchies
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(line, " - ")
		f, t := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 5 || len(t) < 3 || f[3] != "/" {
			continue
		}
		switch t[0] {
		case "cgroup2":
			if h.Unified == "" {
				h.Unified = f[4]
			}
		case "cgroup":
			for _, o := range strings.Split(t[2], ",") {
				if !controllersV1[o] && !strings.HasPrefix(o, "name=") {
					continue
				}
				if h.V1 == nil {
					h.V1 = make(map[string]string)
				}
				if h.V1[o] == "" {
					h.V1[o] = f[4]
				}
			}
		}
	}
	return h
}

var controllersV1 = map[string]bool{"cpu": true, "cpuacct": true, "cpuset": true, "memory": true, "devices": true, "freezer": true, "net_cls": true,
	"net_prio": true, "blkio": true, "perf_event": true, "hugetlb": true, "pids": true, "rdma": true, "misc": true}
