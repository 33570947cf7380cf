package run

import (
	"encoding/json"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// handOver takes the seccomp listener, descriptor number of the process behind pidfd, and sends it with the container's state to the
// agent at linux.seccomp.listenerPath (runtime-spec config-linux.md, "The Container Process State").
func (c *Container) handOver(number, pid, pidfd int, s *specs.LinuxSeccomp) error {
	listener, err := unix.PidfdGetfd(pidfd, number, 0)
	if err != nil {
		return fmt.Errorf("linux.seccomp.listenerPath: take the listener: %w", err)
	}
	defer unix.Close(listener)
	text, err := json.Marshal(specs.ContainerProcessState{Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: pid,
		Metadata: s.ListenerMetadata, State: c.stateAs(specs.StateCreating, c.Pid)})
	if err != nil {
		return err
	}
	conn, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("linux.seccomp.listenerPath: %w", err)
	}
	defer unix.Close(conn)
	if err := unix.Connect(conn, &unix.SockaddrUnix{Name: s.ListenerPath}); err != nil {
		return fmt.Errorf("linux.seccomp.listenerPath: connect to %s: %w", s.ListenerPath, err)
	}
	if err := unix.Sendmsg(conn, text, unix.UnixRights(listener), nil, 0); err != nil {
		return fmt.Errorf("linux.seccomp.listenerPath: %w", err)
	}
	return nil
}
