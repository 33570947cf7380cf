package ctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/bundle"
	"github.com/proa-os/proa/runtime/cgroup"
	"github.com/proa-os/proa/runtime/run"
	"github.com/proa-os/proa/runtime/sdnotify"
	"github.com/proa-os/proa/runtime/spec"
	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/unit"
)

// launch makes the container's root in a mount namespace, has oci-runtime create the container there, names its first process to systemd
// as the unit's main one, and lets it run.
func launch(ctx context.Context, c *call) error {
	k, err := c.container(c.args[0])
	if err != nil {
		return err
	}
	dir := c.bundle(k.Name)
	// A power cut leaves no state, /run being empty then; a killed oci-runtime does.
	if err := c.OCIRoot.Delete(k.Name, true); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	files, err := askAttachment(dir, k)
	if err != nil {
		return err
	}
	start, files, err := starting(dir, k, files)
	if err != nil {
		return err
	}
	if start.Init, err = filepath.EvalSymlinks(c.OCIRuntime[0]); err != nil {
		return err
	}
	ready := -1
	if k.Notify {
		if ready, start.Notify, err = readySocket(dir); err != nil {
			return err
		}
	}
	if err := c.noteStart(k.Name); err != nil {
		return err
	}
	// This thread is in other namespaces from here on, and so are the processes that it starts.
	if err := c.enterNetwork(ctx, k.Name); err != nil {
		return err
	}
	if start.PIDs, err = c.pidNamespace(k); err != nil {
		return err
	}
	if err := bundle.Prepare(c.store, k.Name, dir, start); err != nil {
		return err
	}
	if err := c.writeNames(k.Name); err != nil {
		return err
	}
	// The PID file is for units of Type=forking, which older releases wrote.
	args := []string{"create", "--bundle", dir, "--pid-file", filepath.Join(dir, "pid")}
	if start.Terminal {
		args = append(args, "--console-socket", filepath.Join(dir, consoleSocket))
	}
	if n := len(files) - 3; n > 0 {
		args = append(args, "--preserve-fds", strconv.Itoa(n))
	}
	if err := c.ociRuntime(files, append(args, k.Name)...); err != nil {
		return err
	}
	if k.Unit == "" {
		if err := unit.Refresh(c.unitDir(k), k); err != nil {
			return err
		}
	}
	if err := c.handOver(k, files); err != nil {
		if startCode(err) != ourFailure {
			return err // the process has ended with it: ended tells, as of any other
		}
		return errors.Join(err, c.OCIRoot.Delete(k.Name, true))
	}
	c.event(k, "start", k.Name+" runs "+k.Image)
	if k.Notify || k.AwaitHealth {
		if err := c.await(ctx, k, ready); err != nil {
			return err
		}
		return sdnotify.Send("READY=1")
	}
	return nil
}

// starting decides on the terminal, the descriptors and what the workload is told about them.
func starting(dir string, k *store.Container, files []*os.File) (bundle.Start, []*os.File, error) {
	s := bundle.Start{Terminal: k.Terminal && files != nil}
	if files == nil {
		files = []*os.File{os.Stdin, os.Stdout, os.Stderr}
		if k.Stdin {
			pipe, err := openStdin(dir)
			if err != nil {
				return s, nil, err
			}
			files[0] = pipe
		}
	}
	// Sockets that systemd has opened for the workload (sd_listen_fds(3)); there the workload is process 1.
	if n, err := strconv.Atoi(os.Getenv("LISTEN_FDS")); err == nil && n > 0 && os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) {
		for i := range n {
			files = append(files, os.NewFile(uintptr(3+i), "socket"))
		}
		s.Env = append(s.Env, "LISTEN_FDS="+strconv.Itoa(n), "LISTEN_PID=1")
		if names := os.Getenv("LISTEN_FDNAMES"); names != "" {
			s.Env = append(s.Env, "LISTEN_FDNAMES="+names)
		}
	}
	return s, files, nil
}

// handOver names the created container's process to systemd and lets it run.
func (c *call) handOver(k *store.Container, files []*os.File) error {
	st, err := c.OCIRoot.Load(k.Name)
	if err != nil {
		return err
	}
	told := []string{"MAINPID=" + strconv.Itoa(st.Pid)}
	if !k.Notify && !k.AwaitHealth {
		told = append(told, "READY=1")
	}
	if err := sdnotify.Send(told...); err != nil {
		return err
	}
	// Here and not by oci-runtime start, which would be one more program to load for each container.
	if err := c.OCIRoot.Start(k.Name); err != nil {
		fmt.Fprintf(files[2], "containerctl: %s\n", printable(err.Error())) // to who waits, as oci-runtime does
		return startError{exit(1), startCode(err)}
	}
	return nil
}

// ociRuntime runs oci-runtime with the files as its first descriptors.
func (e *Env) ociRuntime(files []*os.File, args ...string) error {
	args = append(append(append([]string{}, e.OCIRuntime[1:]...), "--root", string(e.OCIRoot)), args...)
	cmd := exec.Command(e.OCIRuntime[0], args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = files[0], files[1], files[2], files[3:]
	err := cmd.Run()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		return startError{exit(1), ended.ExitCode()} // it has said why
	}
	return err
}

// ourFailure is the exit code of run where not the workload is to blame, docker's number.
const ourFailure = 125

// startCode is the exit code that tells of a container that did not start: a shell's if it is about the workload's program.
func startCode(err error) int {
	var command *run.CommandError
	var start startError
	switch {
	case errors.As(err, &command):
		return command.Code()
	case errors.As(err, &start):
		return start.code
	}
	return ourFailure
}

// noteStart remembers how often the kernel has killed in the unit's cgroup, which may outlive a run.
func (c *call) noteStart(name string) error {
	return os.WriteFile(filepath.Join(c.bundle(name), "oom"), []byte(strconv.Itoa(oomKills())), 0o600)
}

// oomKills is how many processes of this process's unit the kernel has killed for want of memory. Control processes of a unit may be in
// a group below the unit's. Without version 2 of cgroups it is 0.
func oomKills() int {
	g, err := cgroup.Of(os.Getpid())
	if err != nil {
		return 0
	}
	dir := g.Dir
	if filepath.Base(dir) == ".control" {
		dir = filepath.Dir(dir)
	}
	n, err := cgroupNumber(filepath.Join(dir, "memory.events"), "oom_kill")
	if err != nil {
		return 0
	}
	return int(n)
}

// ended notes how a container's workload has ended: systemd tells in the environment (systemd.exec(5)).
func ended(ctx context.Context, c *call) error {
	name := c.args[0]
	if len(c.args) > 1 {
		// Of Env.once, which cleans up behind it unless it was killed. By then the name may be another container's.
		late := c.noteLate(name, c.args[1])
		release, err := c.store.AwaitContainer(name, c.args[1])
		late.Stop()
		if errors.Is(err, store.ErrNoContainer) {
			return nil
		}
		if err != nil {
			return err
		}
		defer release()
	}
	k, err := c.store.Container(name)
	if errors.Is(err, store.ErrNoContainer) {
		return c.OCIRoot.Delete(name, true)
	}
	if err != nil {
		return err
	}
	st, err := c.OCIRoot.Load(name)
	if err != nil && !errors.Is(err, run.ErrNotExist) {
		return err
	}
	x := c.exitNow(name, st)
	waiting := findAttachment(c.bundle(name))
	err = errors.Join(c.OCIRoot.Delete(name, true), c.store.SetExit(k, x))
	c.tellEnd(k, x)
	if k.Remove && (!x.Started.IsZero() || len(c.args) > 1) { // of one that did not start run takes the code, and removes it
		err = errors.Join(err, c.takeAway(ctx, c.store, k))
	} else {
		err = errors.Join(err, c.releaseNetwork(ctx, k))
	}
	tellAttachment(waiting, x) // last: then there is nothing left of one with --rm
	return err
}

// exitNow is how a workload has just ended, as systemd tells the program of its ExecStopPost=.
func (c *call) exitNow(name string, st *run.Container) *store.Exit {
	before, _ := os.ReadFile(filepath.Join(c.bundle(name), "oom")) // none: 0
	baseline, _ := strconv.Atoi(string(before))
	x := exitOf(os.Getenv, st, oomKills() > baseline)
	x.Finished = time.Now().UTC()
	return x
}

// patience is how long ended waits for who has started a container for one run before it notes how that has ended, for those that wait
// elsewhere, and in case systemd, which does not wait for ever, has forgotten it before it is asked.
const patience = 2 * time.Second

// noteLate notes how such a container has ended if nobody else does.
func (c *call) noteLate(name, instance string) *time.Timer {
	return time.AfterFunc(patience, func() {
		k, err := c.store.Container(name)
		if err != nil || k.Instance != instance {
			return
		}
		if st, err := c.OCIRoot.Load(name); err == nil {
			c.store.SetExit(k, c.exitNow(name, st)) // an error is one of a container that goes just now
		}
	})
}

// tellEnd tells the journal.
func (c *call) tellEnd(k *store.Container, x *store.Exit) {
	kind := "die"
	if x.OOM {
		kind = "oom"
	}
	c.event(k, kind, k.Name+" "+x.String(), "PROA_EXIT_CODE="+strconv.Itoa(x.Code))
}

// exitOf reads systemd's variables.
func exitOf(getenv func(string) string, st *run.Container, oom bool) *store.Exit {
	x := &store.Exit{Code: ourFailure, Result: getenv("SERVICE_RESULT"), OOM: oom}
	status := getenv("EXIT_STATUS")
	if st == nil { // no workload: the status is launch's
		if code := getenv("EXIT_CODE") + " " + status; code == "exited 126" || code == "exited 127" {
			x.Code, _ = strconv.Atoi(status)
		}
		return x
	}
	x.Started = st.Created.UTC()
	switch getenv("EXIT_CODE") {
	case "exited":
		if n, err := strconv.Atoi(status); err == nil {
			x.Code = n
		}
	case "killed", "dumped":
		if sig, err := spec.Signal(status); err == nil {
			x.Code, x.Signal = 128+int(sig), status
		}
	}
	return x
}

// removeBundle removes what there is of a container in this boot. A health check that goes on may put its outcome into the directory while
// that is emptied; when it has gone, it cannot.
func (e *Env) removeBundle(name string) error {
	for deadline := time.Now().Add(2 * time.Second); ; {
		if err := os.RemoveAll(e.bundle(name)); !errors.Is(err, unix.ENOTEMPTY) || time.Now().After(deadline) {
			return err
		}
	}
}

// takeAway removes what a container leaves behind that does not run any more, but for what systemd knows of it.
func (e *Env) takeAway(ctx context.Context, s *store.Store, k *store.Container) error {
	if k.Instance != "" && !isThere(s, k) {
		return store.ErrNoContainer
	}
	if k.Unit == "" && k.Instance == "" { // no file describes the unit of one run
		if err := unit.Uninstall(e.unitDir(k), k.Name); err != nil {
			return err
		}
	}
	if err := e.OCIRoot.Delete(k.Name, true); err != nil {
		return err
	}
	if err := e.releaseNetwork(ctx, k); err != nil {
		return err
	}
	if err := e.removeBundle(k.Name); err != nil {
		return fmt.Errorf("remove %s: %w", k.Name, err)
	}
	unlock, err := s.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.RemoveContainer(k); err != nil {
		return err
	}
	e.event(k, "remove", k.Name+" is removed")
	return removeAnonymous(s, k)
}

// isThere reports whether a container of one run is the one that has its name. As long as it is, no other one can be.
func isThere(s *store.Store, k *store.Container) bool {
	now, err := s.Container(k.Name)
	return !errors.Is(err, store.ErrNoContainer) && (err != nil || now.Instance == k.Instance)
}

// unitDir is where a container's unit lies.
func (e *Env) unitDir(k *store.Container) string {
	if k.Remove {
		return e.TransientDir
	}
	return e.UnitDir
}

// become replaces this process by oci-runtime, in a mount namespace with the container's root: for units of Type=oneshot, whose process
// it stays.
func (c *call) become(ctx context.Context, name string) error {
	k, err := c.container(name)
	if err != nil {
		return err
	}
	// A power cut leaves no state, /run being empty then; a killed oci-runtime does.
	if err := c.OCIRoot.Delete(name, true); err != nil {
		return err
	}
	dir := c.bundle(name)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	if err := c.enterNetwork(ctx, name); err != nil {
		return err
	}
	pids, err := c.pidNamespace(k)
	if err != nil {
		return err
	}
	if err := bundle.Prepare(c.store, name, dir, bundle.Start{PIDs: pids}); err != nil {
		return err
	}
	if err := c.writeNames(name); err != nil {
		return err
	}
	args := append(append([]string{}, c.OCIRuntime...), "--root", string(c.OCIRoot), "run", "--bundle", dir, name)
	// From the thread that Prepare has locked: it alone is in the namespace.
	err = syscall.Exec(args[0], args, os.Environ())
	return fmt.Errorf("execute %s: %w", args[0], err)
}
