package run

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupMount finds the cgroup2 hierarchy: /sys/fs/cgroup on a machine of today.
func cgroupMount() (string, error) {
	b, err := readFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	found := ""
	for line := range strings.Lines(string(b)) {
		before, after, ok := strings.Cut(line, " - ")
		f := strings.Fields(before)
		if !ok || len(f) < 5 || !strings.HasPrefix(after, "cgroup2 ") {
			continue
		}
		if f[4] == "/sys/fs/cgroup" {
			return f[4], nil
		}
		found = f[4]
	}
	if found == "" {
		return "", errors.New("no cgroup2 file system is mounted")
	}
	return found, nil
}

// makeCgroup makes the cgroup for linux.cgroupsPath and opens it for CLONE_INTO_CGROUP.
func makeCgroup(p string) (string, *os.File, error) {
	mount, err := cgroupMount()
	if err != nil {
		return "", nil, fmt.Errorf("linux.cgroupsPath: %w", err)
	}
	dir := filepath.Join(mount, p)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", nil, fmt.Errorf("linux.cgroupsPath: %w", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return "", nil, fmt.Errorf("linux.cgroupsPath: %w", err)
	}
	return dir, f, nil
}

// removeCgroup kills what is in a cgroup and removes it; "" is none.
func removeCgroup(dir string) error {
	if dir == "" {
		return nil
	}
	if err := setFile(filepath.Join(dir, "cgroup.kill"), "1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("end processes of cgroup: %w", err)
	}
	var err error
	for range 500 { // killed processes leave after a moment
		if err = unix.Rmdir(dir); err == nil || err == unix.ENOENT {
			return nil
		}
		if err != unix.EBUSY {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("remove cgroup %s: %w", dir, err)
}

// cgroupOf opens the cgroup2 group a process is in, for a process that is to join it.
func cgroupOf(pid int) (*os.File, error) {
	b, err := readFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		if p, ok := strings.CutPrefix(line, "0::"); ok {
			mount, err := cgroupMount()
			if err != nil {
				return nil, err
			}
			return os.Open(filepath.Join(mount, strings.TrimSpace(p)))
		}
	}
	return nil, fmt.Errorf("process %d is in no cgroup2 group", pid)
}
