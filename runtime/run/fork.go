package run

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/script"
)

// Some namespaces can be entered only by a process of its own memory and one thread: a user namespace by path and a time namespace
// (setns(2)). And what is new must be made behind, to belong to the user namespace. The script then forks:
//
//	first child   fork ---> second   enter time, mount and user namespace; fork with CLONE_NEW* ---> third: the container's first process
//	ends                    ends
//
// Each is a child of the caller (CLONE_PARENT), which hears of the next one by a pidfd and lets it go on.

// fork makes a copy of the process that walks the script, in new namespaces as flags say. The copy goes on behind, the other one ends.
func (p *plan) fork(flags uint64) {
	iov := p.Words(0, 4)
	p.Point(iov, 0, p.Bytes(kind(script.KindForked)))
	control := p.Bytes(unix.UnixRights(0))
	hdr := p.Words(0, 0, 0, 1, 0, uint64(unix.CmsgSpace(4)), 0)
	p.Point(hdr, 16, iov)
	p.Point(hdr, 32, control)
	// struct clone_args: the pidfd goes into the message.
	args := p.Words(flags|unix.CLONE_PARENT|unix.CLONE_PIDFD|unix.CLONE_CLEAR_SIGHAND, 0, 0, 0, 0, 0, 0, 0)
	p.Point(args, 8, control+script.Blob(unix.CmsgLen(0)))
	child := p.Later()
	p.Call("fork", unix.SYS_CLONE3, args, 64).ZeroFails().OnErrorOnly(child, unix.EPIPE)
	p.Call("talk to the caller", unix.SYS_SENDMSG, p.fds.talk, hdr, 0)
	p.Call("end", unix.SYS_EXIT_GROUP, 0)
	p.Append(child, "", script.NoCall, 0)
	p.await(p.fds.talk)
}

// follow takes the process that c has forked in c's place.
func (c *child) follow() error {
	fds := []unix.PollFd{{Fd: int32(c.talk.Fd()), Events: unix.POLLIN}, {Fd: int32(c.proc.pidfd), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err == nil {
			break
		} else if err != unix.EINTR {
			return fmt.Errorf("hear from the container: %w", err)
		}
	}
	if fds[0].Revents == 0 {
		return errSilent
	}
	m, err := hear(int(c.talk.Fd()))
	switch {
	case err != nil:
		return err
	case m.kind != script.KindForked || len(m.fds) != 1:
		closeAll(m.fds)
		return fmt.Errorf("hear from the container: unexpected message %q", rune(m.kind))
	}
	pid, err := pidOf(m.fds[0])
	if err != nil {
		unix.Close(m.fds[0])
		return fmt.Errorf("follow the container: %w", err)
	}
	c.proc.Wait()
	unix.Close(c.proc.pidfd)
	c.proc = &Process{Pid: pid, pidfd: m.fds[0], sister: c.proc.sister}
	return c.tell()
}

// pidOf returns the pid behind a pidfd, in the pid namespace of /proc (proc_pid_fdinfo(5)).
func pidOf(pidfd int) (int, error) {
	b, err := readFile("/proc/thread-self/fdinfo/" + strconv.Itoa(pidfd))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "Pid:"); ok {
			pid, err := strconv.Atoi(strings.TrimSpace(v))
			if err == nil && pid <= 0 {
				err = errors.New("the process has ended")
			}
			return pid, err
		}
	}
	return 0, &os.PathError{Op: "read pid", Path: "pidfd", Err: unix.EINVAL}
}
