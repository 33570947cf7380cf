package run

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/script"
)

// stageName is argv[0] of the second process of the portable way.
const stageName = "oci-runtime-stage-two"

// IsStageTwo reports whether this process was started to walk a script.
func IsStageTwo() bool { return len(os.Args) == 1 && os.Args[0] == stageName }

// The script belongs on the process's first thread: what others look up by its pid, such as /proc/PID/timens_offsets, is that thread's. Only
// an init can keep main there.
func init() {
	if IsStageTwo() {
		runtime.LockOSThread()
	}
}

// StageTwo walks the script in the descriptor behind the child's own, and becomes the workload. It returns only if it
// cannot even begin.
func StageTwo() error {
	// The highest descriptor is the script: the caller has put it behind the others.
	last := -1
	for fd := 3; fd < 3+maxPreserve+childFds+1; fd++ {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && isScript(fd) {
			last = fd
			break
		}
	}
	if last < 0 {
		return errors.New("no script")
	}
	f := os.NewFile(uintptr(last), "script")
	p, err := script.Load(f)
	f.Close()
	if err != nil {
		return err
	}
	return p.Run()
}

// isScript tells the script by the name of its memory file.
func isScript(fd int) bool {
	to, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	return err == nil && to == "/memfd:"+scriptName+" (deleted)"
}

const (
	scriptName  = "oci-runtime-script"
	maxPreserve = 1024
	childFds    = 6
)

// fds are the numbers of a child's descriptors. They lie behind those it hands on to the workload.
type fds struct {
	talk    int // socket pair with the caller, later the connection of Start
	extra   int // create: the listening socket; exec: a pidfd of the container's first process
	console int // connection to --console-socket
	user    int // namespaces to join
	time    int
	mount   int
}

func childNumbers(preserve int) fds {
	n := 3 + preserve
	return fds{n, n + 1, n + 2, n + 3, n + 4, n + 5}
}

func (f fds) behind() int { return f.mount + 1 }

// A launch is how a child is to be made.
type launching struct {
	flags    uint64                               // CLONE_NEW*
	group    *os.File                             // cgroup2 to be born in, or nil
	sister   bool                                 // a child of this process's parent
	preserve int                                  // descriptors from 3 on that the workload gets
	extra    *os.File                             // see fds
	console  *os.File                             // see fds
	stdin    *os.File                             // instead of this process\'s; nil for that
	ids      *idMaps                              // of a new user namespace, or nil
	forks    int                                  // how often the script forks (plan.fork)
	affinity []uint64                             // of exec: the processors to run on in the end; empty for all
	paths    joined                               // namespaces that the child joins itself
	write    func(b *script.Builder, f fds) error // appends the calls
}

// A child walks its script and talks to this process.
type child struct {
	proc *Process
	talk *os.File
}

// direct reports whether children walk their script in this process's memory. The variable is for tests of the other way.
func direct() bool { return script.Direct && os.Getenv("PROA_OCI_PORTABLE") == "" }

// start makes the child.
func (l *launching) start() (*child, error) {
	if l.preserve > maxPreserve {
		return nil, fmt.Errorf("--preserve-fds: want at most %d, found %d", maxPreserve, l.preserve)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make child: %w", err)
	}
	c := &child{talk: os.NewFile(uintptr(pair[0]), "child")}
	theirs := os.NewFile(uintptr(pair[1]), "caller")
	defer theirs.Close()
	if direct() {
		err = l.startDirect(c, theirs)
	} else {
		err = l.startPortable(c, theirs)
	}
	for i := 0; i < l.forks && err == nil; i++ {
		err = c.follow()
	}
	if err == nil && l.ids != nil && (l.forks > 0 || direct()) {
		err = l.ids.write(c.proc.Pid)
	}
	if err != nil {
		c.talk.Close()
		return nil, err
	}
	return c, nil
}

// finish builds the script. moves are descriptors of this process that the child takes under other numbers.
func (l *launching) finish(moves map[int]int) (*script.Program, error) {
	f := childNumbers(l.preserve)
	b := new(script.Builder)
	for from, to := range moves {
		flags := unix.O_CLOEXEC
		if to == 0 {
			flags = 0
		}
		b.Call("take descriptors", unix.SYS_DUP3, from, to, flags)
	}
	// Not only those behind: at a number that the child has no use for may be one of this process, or of Go's in the second one, and
	// the container's start may be long in coming.
	taken := []*os.File{l.extra, l.console, l.paths.user, l.paths.time, l.paths.mount} // from f.extra on
	free := f.behind()
	for ; free > f.extra && taken[free-1-f.extra] == nil; free-- {
	}
	for n := f.extra; n < free; n++ {
		if taken[n-f.extra] == nil {
			b.Call("close descriptors", unix.SYS_CLOSE, n).IgnoreOnly(unix.EBADF)
		}
	}
	b.Call("close descriptors", unix.SYS_CLOSE_RANGE, free, int(^uint32(0)), 0)
	if err := l.write(b, f); err != nil {
		return nil, err
	}
	return b.Finish(f.talk), nil
}

func (l *launching) startDirect(c *child, theirs *os.File) error {
	f := childNumbers(l.preserve)
	moves := make(map[int]int)
	for _, m := range []struct {
		file *os.File
		to   int
	}{{theirs, f.talk}, {l.extra, f.extra}, {l.console, f.console}, {l.stdin, 0},
		{l.paths.user, f.user}, {l.paths.time, f.time}, {l.paths.mount, f.mount}} {
		if m.file == nil {
			continue
		}
		// Above all targets, so that no move overwrites the source of another.
		high, err := unix.FcntlInt(m.file.Fd(), unix.F_DUPFD_CLOEXEC, f.behind())
		if err != nil {
			return fmt.Errorf("make child: %w", err)
		}
		defer unix.Close(high)
		moves[high] = m.to
	}
	p, err := l.finish(moves)
	if err != nil {
		return err
	}
	group := -1
	if l.group != nil {
		group = int(l.group.Fd())
	}
	// The child shares this process's memory, and may be born where others could look into it.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("hide from containers: %w", err)
	}
	flags := l.firstFlags()
	if l.sister {
		flags |= unix.CLONE_PARENT
	}
	pid, pidfd, err := p.Start(flags, group)
	if err != nil {
		return fmt.Errorf("make child (needs root): %w", err)
	}
	c.proc = &Process{Pid: pid, pidfd: pidfd, sister: l.sister}
	return nil
}

func (l *launching) startPortable(c *child, theirs *os.File) error {
	p, err := l.finish(nil)
	if err != nil {
		return err
	}
	fd, err := unix.MemfdCreate(scriptName, unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("write script: %w", err)
	}
	orders := os.NewFile(uintptr(fd), scriptName)
	defer orders.Close()
	if _, err := p.WriteTo(orders); err != nil {
		return fmt.Errorf("write script: %w", err)
	}
	if _, err := orders.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("write script: %w", err)
	}
	pidfd := -1
	attr := &os.ProcAttr{Dir: "/", Env: []string{}, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys: &syscall.SysProcAttr{Cloneflags: uintptr(l.firstFlags()), PidFD: &pidfd}}
	if l.stdin != nil {
		attr.Files[0] = l.stdin
	}
	for i := range l.preserve {
		attr.Files = append(attr.Files, os.NewFile(uintptr(3+i), "preserved"))
	}
	attr.Files = append(attr.Files, theirs, l.extra, l.console, l.paths.user, l.paths.time, l.paths.mount, orders)
	if l.group != nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(l.group.Fd())
	}
	if l.ids != nil && l.forks == 0 {
		l.ids.apply(attr.Sys)
	}
	proc, err := os.StartProcess("/proc/self/exe", []string{stageName}, attr)
	if err != nil {
		return fmt.Errorf("make child (needs root): %w", err)
	}
	c.proc = &Process{Pid: proc.Pid, pidfd: pidfd}
	return proc.Release() // Process waits for it
}

// tell lets the child go on.
func (c *child) tell() error {
	if _, err := unix.Write(int(c.talk.Fd()), []byte{'G'}); err != nil {
		return fmt.Errorf("talk to the container: %w", err)
	}
	return nil
}

// pollRaw is poll(2) that Go's scheduler does not hear of: what it would do meanwhile, give the processor to threads that look for work,
// is a tenth of a start. There is no other goroutine to run.
func pollRaw(fds []unix.PollFd) {
	for {
		n, _, e := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)), 0, 0, 0, 0)
		if e != unix.EINTR || int(n) > 0 {
			return
		}
	}
}

// A message is what a child or a starting container says.
type message struct {
	kind uint32
	fd   int   // KindNotify: number in the child
	fds  []int // descriptors that came along
}

// A CommandError says that the workload's program is not there, or cannot be executed.
type CommandError struct{ error }

// Unwrap returns the reason.
func (e *CommandError) Unwrap() error { return e.error }

// Code is the exit code that shells, and docker, have for it: 127 if there is no such program, 126 if it cannot be executed.
func (e *CommandError) Code() int {
	if errors.Is(e.error, unix.ENOENT) {
		return 127
	}
	return 126
}

// hear waits for one message. A child that has executed its workload says nothing more: io.EOF.
func hear(fd int) (message, error) {
	buf, oob := make([]byte, 4096), []byte(nil)
	oob = make([]byte, unix.CmsgSpace(4*253))
	var n, oobn int
	var err error
	pollRaw([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}})
	for {
		if n, oobn, _, _, err = unix.Recvmsg(fd, buf, oob, unix.MSG_CMSG_CLOEXEC); err != unix.EINTR {
			break
		}
	}
	switch {
	case err == unix.ECONNRESET || (err == nil && n == 0):
		return message{}, io.EOF
	case err != nil:
		return message{}, fmt.Errorf("hear from the container: %w", err)
	case n < 4:
		return message{}, fmt.Errorf("hear from the container: %d bytes", n)
	}
	m := message{kind: binary.NativeEndian.Uint32(buf)}
	switch {
	case m.kind == script.KindError && n >= 8:
		e := unix.Errno(binary.NativeEndian.Uint32(buf[4:]))
		err := fmt.Errorf("%s: %w", buf[8:n], e)
		if bytes.HasPrefix(buf[8:n], []byte("process.args[0]: ")) {
			err = &CommandError{err}
		}
		return m, err
	case m.kind == script.KindNotify && n >= 8:
		m.fd = int(binary.NativeEndian.Uint32(buf[4:]))
	}
	if oobn > 0 {
		cs, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil || len(cs) != 1 {
			return m, fmt.Errorf("hear from the container: %d control messages: %w", len(cs), err)
		}
		if m.fds, err = unix.ParseUnixRights(&cs[0]); err != nil {
			return m, fmt.Errorf("hear from the container: %w", err)
		}
	}
	return m, nil
}

var errSilent = errors.New("the container's first process ended without a word: was it killed? (see the kernel log)")
