package start

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// isolatedVariable marks the process that Isolate has started.
const isolatedVariable = "PROA_BENCH_ISOLATED"

// Isolate starts this program again in a mount namespace in which /sys/fs/cgroup is the cgroup2 hierarchy alone: some runtimes refuse
// hosts with both versions. It returns in the new process.
func Isolate() error {
	if os.Getenv(isolatedVariable) != "" {
		return nil
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make mount namespace (needs root): %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &st); err == nil && st.Type != unix.CGROUP2_SUPER_MAGIC {
		if err := onlyCgroup2(); err != nil {
			return fmt.Errorf("mount cgroup2: %w", err)
		}
	}
	err := syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), isolatedVariable+"=1"))
	return fmt.Errorf("start again: %w", err)
}

func onlyCgroup2() error {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	lines := strings.Split(string(b), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if f := strings.Fields(lines[i]); len(f) > 1 && (f[1] == "/sys/fs/cgroup" || strings.HasPrefix(f[1], "/sys/fs/cgroup/")) {
			if err := unix.Unmount(f[1], unix.MNT_DETACH); err != nil {
				return err
			}
		}
	}
	return unix.Mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, "")
}
