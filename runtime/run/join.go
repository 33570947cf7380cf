package run

import (
	"fmt"
	"os"
	"runtime"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/spec"
)

// joinNamespaces enters those given by path with this thread, whose child inherits them, and returns the clone flags for
// the new ones. The cgroup namespace is made by stage two.
func joinNamespaces(ns map[specs.LinuxNamespaceType]spec.Namespace) (uint64, error) {
	runtime.LockOSThread() // for good: the thread is in other namespaces from now on
	flags := uint64(0)
	for t, n := range ns {
		flag := spec.CloneFlag(t)
		if n.Path == "" {
			if t != specs.CgroupNamespace && t != specs.TimeNamespace {
				flags |= uint64(flag)
			}
			continue
		}
		f, err := os.Open(n.Path)
		if err != nil {
			return 0, fmt.Errorf("linux.namespaces (%s): %w", t, err)
		}
		err = unix.Setns(int(f.Fd()), int(flag))
		f.Close()
		if err != nil {
			return 0, fmt.Errorf("linux.namespaces (%s): join %s: %w", t, n.Path, err)
		}
	}
	return flags, nil
}
