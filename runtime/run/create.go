package run

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/seccomp"
	"github.com/proa-os/proa/runtime/spec"
)

// Options say what to create.
type Options struct {
	ID      string
	Bundle  string // directory with config.json
	PidFile string // written before the workload runs; "" for none
	Follow  bool   // kill the workload when the calling thread ends
}

// Create makes a container up to the point where Start lets the workload run.
func (r Root) Create(o Options) error {
	_, err := r.launch(o, true)
	return err
}

// Run makes a container and lets the workload run. It returns the first process, which is a child of this one; when this
// one ends it goes on.
func (r Root) Run(o Options) (*os.Process, error) { return r.launch(o, false) }

func (r Root) launch(o Options, listen bool) (_ *os.Process, err error) {
	if err := CheckID(o.ID); err != nil {
		return nil, err
	}
	bundle, err := filepath.Abs(o.Bundle)
	if err != nil {
		return nil, err
	}
	s, err := spec.Load(bundle)
	if err != nil {
		return nil, err
	}
	filter, err := compile(s)
	if err != nil {
		return nil, err
	}
	c := &Container{
		State:   specs.State{Version: specs.Version, ID: o.ID, Bundle: bundle, Annotations: s.Annotations},
		Created: time.Now(),
		dir:     filepath.Join(string(r), o.ID),
	}
	if err := c.makeDir(s); err != nil {
		return nil, err
	}
	var p *os.Process
	defer func() {
		if err == nil {
			return
		}
		if p != nil {
			p.Kill()
			p.Wait()
		}
		// The first error tells the reason; these have nothing to add.
		removeCgroup(c.Cgroup)
		os.RemoveAll(c.dir)
		if o.PidFile != "" {
			os.Remove(o.PidFile)
		}
	}()

	var extra *os.File
	if listen {
		if extra, err = c.listen(); err != nil {
			return nil, err
		}
		defer extra.Close()
	}
	var group *os.File
	if s.Linux.CgroupsPath != "" {
		if c.Cgroup, group, err = makeCgroup(s.Linux.CgroupsPath); err != nil {
			return nil, err
		}
		defer group.Close()
	}
	ns, err := spec.Namespaces(s.Linux.Namespaces)
	if err != nil {
		return nil, err
	}
	clone, err := joinNamespaces(ns)
	if err != nil {
		return nil, err
	}
	p, talk, err := startStageTwo(&order{Spec: s, Bundle: bundle, Seccomp: filter, Listen: listen, Follow: o.Follow}, extra, clone, group)
	if err != nil {
		return nil, err
	}
	defer talk.Close()
	if err := awaitReady(talk); err != nil {
		return p, err
	}
	c.Pid = p.Pid
	if c.Started, err = startTicks(p.Pid); err != nil {
		return p, fmt.Errorf("create %s: %w", o.ID, err)
	}
	if err := c.writeState(); err != nil {
		return p, fmt.Errorf("create %s: %w", o.ID, err)
	}
	if o.PidFile != "" {
		if err := writeFile(o.PidFile, []byte(strconv.Itoa(p.Pid))); err != nil {
			return p, fmt.Errorf("write pid file: %w", err)
		}
	}
	if _, err := talk.Write([]byte{sayGo}); err != nil {
		return p, fmt.Errorf("create %s: %w", o.ID, err)
	}
	return p, readError(talk)
}

// Start lets the workload of a created container run.
func (r Root) Start(id string) error {
	c, err := r.Load(id)
	if err != nil {
		return err
	}
	if c.Status != specs.StateCreated {
		return fmt.Errorf("start %s: it is %s, not created", id, c.Status)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("start %s: %w", id, err)
	}
	conn := os.NewFile(uintptr(fd), "start")
	defer conn.Close()
	err = c.atSocket(func(a *unix.SockaddrUnix) error { return unix.Connect(fd, a) })
	if err == nil {
		_, err = conn.Write([]byte{sayGo})
	}
	if err == nil {
		err = readError(conn)
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", id, err)
	}
	if err := os.Remove(filepath.Join(c.dir, "start.sock")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("start %s: %w", id, err)
	}
	return nil
}

func compile(s *specs.Spec) (*seccomp.Program, error) {
	if s.Linux.Seccomp == nil {
		return nil, nil
	}
	return seccomp.Compile(s.Linux.Seccomp)
}

// makeDir takes the ID: of two callers one makes the directory.
func (c *Container) makeDir(s *specs.Spec) error {
	if err := os.MkdirAll(filepath.Dir(c.dir), 0o711); err != nil {
		return fmt.Errorf("create %s: %w", c.ID, err)
	}
	err := os.Mkdir(c.dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create %s: a container with this ID exists: delete it first", c.ID)
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", c.ID, err)
	}
	b, err := json.Marshal(s)
	if err == nil {
		err = writeFile(filepath.Join(c.dir, "config.json"), b)
	}
	if err != nil {
		os.RemoveAll(c.dir)
		return fmt.Errorf("create %s: %w", c.ID, err)
	}
	return nil
}

func (c *Container) listen() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", c.ID, err)
	}
	f := os.NewFile(uintptr(fd), "start.sock")
	err = c.atSocket(func(a *unix.SockaddrUnix) error { return unix.Bind(fd, a) })
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("create %s: listen for start: %w", c.ID, err)
	}
	return f, nil
}

// atSocket calls f with an address that fits sun_path however long the directory is.
func (c *Container) atSocket(f func(*unix.SockaddrUnix) error) error {
	dir, err := os.Open(c.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return f(&unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/start.sock", dir.Fd())})
}

// joinNamespaces enters those given by path with this thread, whose child inherits them, and returns the clone flags for
// the new ones. The cgroup namespace is made by stage two.
func joinNamespaces(ns map[specs.LinuxNamespaceType]spec.Namespace) (uintptr, error) {
	runtime.LockOSThread() // for good: the thread is in other namespaces from now on
	flags := uintptr(0)
	for t, n := range ns {
		flag := spec.CloneFlag(t)
		if n.Path == "" {
			if t != specs.CgroupNamespace {
				flags |= flag
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

// startStageTwo clones this program with the order in its hands.
func startStageTwo(o *order, extra *os.File, clone uintptr, group *os.File) (*os.Process, *os.File, error) {
	program, err := openProgram()
	if err != nil {
		return nil, nil, err
	}
	defer program.Close()
	orders, err := orderFile(o)
	if err != nil {
		return nil, nil, err
	}
	defer orders.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("start stage two: %w", err)
	}
	talk, theirs := os.NewFile(uintptr(pair[0]), "stage two"), os.NewFile(uintptr(pair[1]), "caller")
	defer theirs.Close()
	attr := &os.ProcAttr{
		Dir:   "/",
		Env:   []string{},
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, theirs, orders},
		Sys:   &syscall.SysProcAttr{Cloneflags: clone},
	}
	if extra != nil {
		attr.Files = append(attr.Files, extra)
	}
	if group != nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(group.Fd())
	}
	p, err := os.StartProcess(fmt.Sprintf("/proc/self/fd/%d", program.Fd()), []string{stageName}, attr)
	if err != nil {
		talk.Close()
		return nil, nil, fmt.Errorf("start stage two (needs root): %w", err)
	}
	return p, talk, nil
}

func orderFile(o *order) (*os.File, error) {
	fd, err := unix.MemfdCreate("order", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("write order: %w", err)
	}
	f := os.NewFile(uintptr(fd), "order")
	if err := json.NewEncoder(f).Encode(o); err != nil {
		f.Close()
		return nil, fmt.Errorf("write order: %w", err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		f.Close()
		return nil, fmt.Errorf("write order: %w", err)
	}
	return f, nil
}

// awaitReady waits until stage two has set everything up.
func awaitReady(talk *os.File) error {
	var b [1]byte
	if _, err := io.ReadFull(talk, b[:]); err != nil {
		return errors.New("stage two ended without a word: was it killed? (see the kernel log)")
	}
	if b[0] == sayReady {
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(talk, 64<<10))
	return errors.New(string(text))
}
