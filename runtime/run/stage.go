package run

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/seccomp"
	"github.com/proa-os/proa/runtime/spec"
)

// stageName is argv[0] of stage two.
const stageName = "oci-runtime-stage-two"

// Descriptors of stage two behind standard input, output and error.
const (
	fdTalk  = 3 // socket pair with the caller
	fdOrder = 4 // what to do: an order as JSON
	fdExtra = 5 // create: the listening socket; exec: a pidfd of the container's first process
)

// An order tells stage two what to do.
type order struct {
	Spec    *specs.Spec
	Bundle  string // absolute
	Seccomp *seccomp.Program
	Listen  bool // wait for Start on fdExtra instead of for the caller
	Join    int  // clone flags of the namespaces of fdExtra to enter instead of making new ones; 0: make them
	Follow  bool // be killed when the caller ends
}

// What is said on the socket pair and to Start: one byte, an error with its text behind it.
const (
	sayReady = 'R' // stage two: set up, waiting
	sayGo    = 'G' // caller: execute the workload
	sayError = 'E' // stage two: then text until the end
)

// IsStageTwo reports whether this process was started by Create, Run or Exec.
func IsStageTwo() bool { return len(os.Args) == 1 && os.Args[0] == stageName }

// StageTwo sets the container up around this process and becomes the workload. It returns only on error, after having
// told the caller.
func StageTwo() error {
	runtime.LockOSThread()
	talk := os.NewFile(fdTalk, "caller")
	err := stageTwo(&talk)
	if err == errNoCaller {
		return err
	}
	if talk != nil {
		talk.Write(append([]byte{sayError}, err.Error()...))
	}
	return err
}

var errNoCaller = errors.New("the caller is gone")

// stageTwo may replace talk by the connection of Start.
func stageTwo(talk **os.File) error {
	// Nobody in the container may look into this process, whose descriptors still lead out.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("hide from the container: %w", err)
	}
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close descriptors on exec: %w", err)
	}
	var o order
	if err := json.NewDecoder(os.NewFile(fdOrder, "order")).Decode(&o); err != nil {
		return fmt.Errorf("read order: %w", err)
	}
	if err := setUp(&o); err != nil {
		return err
	}
	p := o.Spec.Process
	if !p.NoNewPrivileges {
		// Without no_new_privs the filter needs CAP_SYS_ADMIN, so it comes before the capabilities go.
		if err := installFilter(o.Seccomp); err != nil {
			return err
		}
	}
	if err := becomeUser(p); err != nil {
		return err
	}
	if o.Follow {
		// After the change of ids, which clears it. If the caller has ended already, awaitGo notices.
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
			return fmt.Errorf("follow the caller: %w", err)
		}
	}
	program, err := lookPath(p)
	if err != nil {
		return err
	}
	if err := awaitGo(talk, o.Listen); err != nil {
		return err
	}
	if p.NoNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("process.noNewPrivileges: %w", err)
		}
		if err := installFilter(o.Seccomp); err != nil {
			return err
		}
	}
	err = syscall.Exec(program, p.Args, p.Env)
	return fmt.Errorf("process.args[0]: execute %s: %w", program, err)
}

// setUp does all that needs root and the caller's file system.
func setUp(o *order) error {
	s := o.Spec
	unix.Umask(0)
	if err := defaultSignals(); err != nil {
		return err
	}
	if _, err := unix.Setsid(); err != nil {
		return fmt.Errorf("make session: %w", err)
	}
	if err := setOOMScore(s.Process); err != nil {
		return err
	}
	if o.Join != 0 {
		// A thread can enter a mount namespace only if it shares its root with no other thread.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("enter the container: %w", err)
		}
		if err := unix.Setns(fdExtra, o.Join); err != nil {
			return fmt.Errorf("enter the container's mounts and cgroup: %w", err)
		}
		return nil
	}
	ns, err := spec.Namespaces(s.Linux.Namespaces)
	if err != nil {
		return err
	}
	if n := ns[specs.CgroupNamespace]; n.Wanted && n.Path == "" {
		// Not with clone: the new namespace must be rooted in the group that clone put this process in.
		if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
			return fmt.Errorf("make cgroup namespace: %w", err)
		}
	}
	if n := ns[specs.NetworkNamespace]; n.Wanted && n.Path == "" {
		if err := bringUpLoopback(); err != nil {
			return err
		}
	}
	if s.Hostname != "" {
		if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
			return fmt.Errorf("hostname %q: %w", s.Hostname, err)
		}
	}
	if s.Domainname != "" {
		if err := unix.Setdomainname([]byte(s.Domainname)); err != nil {
			return fmt.Errorf("domainname %q: %w", s.Domainname, err)
		}
	}
	return enterRoot(s, o.Bundle)
}

// awaitGo reports ready and waits for the word of the caller, and with listen then for that of Start.
func awaitGo(talk **os.File, listen bool) error {
	if _, err := (*talk).Write([]byte{sayReady}); err != nil {
		return errNoCaller
	}
	if !hearGo(*talk) {
		return errNoCaller
	}
	if !listen {
		return nil
	}
	(*talk).Close()
	*talk = nil
	for {
		fd, _, err := unix.Accept4(fdExtra, unix.SOCK_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait for start: %w", err)
		}
		c := os.NewFile(uintptr(fd), "start")
		if hearGo(c) {
			*talk = c
			return nil
		}
		c.Close()
	}
}

func hearGo(f *os.File) bool {
	var b [1]byte
	_, err := io.ReadFull(f, b[:])
	return err == nil && b[0] == sayGo
}

// readError reads what stage two says until it executes the workload or ends; nil is the former.
func readError(r io.Reader) error {
	b, err := io.ReadAll(io.LimitReader(r, 64<<10))
	if err != nil && len(b) == 0 {
		return fmt.Errorf("hear from the container: %w", err)
	}
	if len(b) == 0 {
		return nil
	}
	return errors.New(string(b[1:]))
}
