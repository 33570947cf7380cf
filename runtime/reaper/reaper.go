// Package reaper is process 1 of a container made with --init: the part of an init that programs which are none do not play.
//
// oci-runtime is mounted into the container, read-only, as /dev/init, and the workload's command stands behind it:
//
//	/dev/init [-t] -- COMMAND [ARGUMENTS]
//
// With -t the command has a terminal that nobody sits at, and process 1 is the one that holds it: for run -dt.
//
// Process 1 starts the command in a process group of its own, which gets the terminal if there is one; passes on every signal that it
// gets; waits for whatever is orphaned; and when the command ends, ends with its code (128+n for signal n), whereupon the kernel kills
// the rest. The kernel drops signals that process 1 has no handler for: behind an init TERM ends a program that knows nothing of it.
//
// Docker does the same with tini, whose rules about signals these are: the kernel's own about faults, and those about the terminal's
// background, are not passed on. SIGURG is not either: Go's scheduler sends it to itself. A command that is not there ends with 127,
// one that cannot be executed with 126.
package reaper

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Path is where the program is in a container.
const Path = "/dev/init"

// childName is argv[0] of the process that is about to become the command.
const childName = "init-child"

// Is reports whether this process was started as an init, by its arguments.
func Is(args []string) bool {
	return len(args) > 1 && (args[0] == Path && (args[1] == "--" || args[1] == "-t") || args[0] == childName)
}

// Main is the process, and returns its exit code.
func Main(args []string) int {
	if args[0] == childName {
		return become(args[1:])
	}
	debug.SetGCPercent(100) // it lives for as long as the container
	runtime.GOMAXPROCS(1)   // as few threads as can be: they count as the container's
	signals, ended := make(chan os.Signal, 64), make(chan os.Signal, 1)
	signal.Notify(signals, passedOn()...)
	signal.Notify(ended, unix.SIGCHLD)
	pid, t, err := begin(args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "init: %v\n", err)
		return 126
	}
	debug.FreeOSMemory() // what other uses of the program have set up before it came here
	for {
		select {
		case s := <-signals:
			if s != unix.SIGTTIN && s != unix.SIGTTOU {
				unix.Kill(pid, s.(syscall.Signal)) // fails only when it has ended
			}
		case <-ended:
			if code, ok := reap(pid); ok {
				if t != nil {
					t.drain()
				}
				return code
			}
		}
	}
}

// begin starts what stands behind "--", with a terminal if it says so.
func begin(args []string) (pid int, t *terminal, err error) {
	attr := &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setpgid: true}}
	if args[0] == "-t" {
		if t, err = openTerminal(); err != nil {
			return 0, nil, err
		}
		args = args[1:]
		t.attr(attr)
	}
	if pid, err = syscall.ForkExec("/proc/self/exe", append([]string{childName}, args[1:]...), attr); err != nil {
		return 0, nil, fmt.Errorf("start the command: %w", err)
	}
	if t != nil {
		t.serve()
	}
	return pid, t, nil
}

// passedOn are the signals to have a handler for.
func passedOn() (all []os.Signal) {
	own := []unix.Signal{unix.SIGKILL, unix.SIGSTOP, unix.SIGCHLD, unix.SIGURG, unix.SIGPIPE,
		unix.SIGFPE, unix.SIGILL, unix.SIGSEGV, unix.SIGBUS, unix.SIGABRT, unix.SIGTRAP, unix.SIGSYS}
	for s := unix.Signal(1); s <= 64; s++ {
		if !slices.Contains(own, s) {
			all = append(all, s)
		}
	}
	return all
}

// reap waits for all that have ended; ok is true if pid is one of them, and code is how it ended.
func reap(pid int) (code int, ok bool) {
	for {
		var status unix.WaitStatus
		switch got, err := unix.Wait4(-1, &status, unix.WNOHANG, nil); {
		case err == unix.EINTR:
			continue
		case err != nil || got == 0:
			return code, ok
		case got == pid && status.Signaled():
			code, ok = 128+int(status.Signal()), true
		case got == pid:
			code, ok = status.ExitStatus(), true
		}
	}
}

// become makes this process the command.
func become(command []string) int {
	takeTerminal()
	if os.Getenv("LISTEN_PID") == "1" { // sd_listen_fds(3): the sockets are for who has this number
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	}
	err := execute(command, os.Environ())
	fmt.Fprintf(os.Stderr, "init: %s: %v\n", command[0], err)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return 127
	}
	return 126
}

// takeTerminal makes this process's group the one in the foreground, if there is a terminal. SIGTTOU, which stops who does that from the
// background, is held off (tcsetpgrp(3)), not ignored: the command would inherit that.
func takeTerminal() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var stops, before unix.Sigset_t
	stops.Val[0] = 1 << (unix.SIGTTOU - 1)
	if unix.PthreadSigmask(unix.SIG_BLOCK, &stops, &before) != nil {
		return
	}
	for fd := range 3 {
		if unix.IoctlSetPointerInt(fd, unix.TIOCSPGRP, os.Getpid()) == nil {
			break
		}
	}
	unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
}

// execute is execvpe(3): a name without a slash is looked for in PATH.
func execute(command, env []string) error {
	if strings.Contains(command[0], "/") {
		return syscall.Exec(command[0], command, env)
	}
	last := error(unix.ENOENT)
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		err := syscall.Exec(filepath.Join(dir, command[0]), command, env)
		if err != unix.ENOENT && err != unix.ENOTDIR {
			last = err
		}
		if err != unix.ENOENT && err != unix.ENOTDIR && err != unix.EACCES {
			break
		}
	}
	return last
}
