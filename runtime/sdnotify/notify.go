// Package sdnotify tells the service manager about this process's unit (sd_notify(3)).
package sdnotify

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Send tells the service manager, in lines of NAME=VALUE, and waits until it has taken notice, so that this process may
// end without being missed. Without a service manager to tell, NOTIFY_SOCKET being unset, it does nothing.
func Send(lines ...string) error {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return nil
	}
	if socket[0] != '/' && socket[0] != '@' {
		return fmt.Errorf("notify systemd: NOTIFY_SOCKET is %q", socket)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer unix.Close(fd)
	to := &unix.SockaddrUnix{Name: socket}
	if err := unix.Sendmsg(fd, []byte(strings.Join(lines, "\n")), nil, to, 0); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	// It closes the descriptor when it comes to this message, which is behind the one above.
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer r.Close()
	err = unix.Sendmsg(fd, []byte("BARRIER=1"), unix.UnixRights(int(w.Fd())), to, 0)
	w.Close()
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(r.Fd()), Events: unix.POLLIN}}, int((10 * time.Second).Milliseconds()))
	if err == nil && n == 0 {
		err = errors.New("no answer within 10 s")
	}
	if err != nil && err != unix.EINTR {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}
