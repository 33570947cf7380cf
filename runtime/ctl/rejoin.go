package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/run"
	"github.com/proa-os/proa/runtime/store"
)

// stdinPipe is the standard input of a container that was made with -i and that nobody waits for: a pipe with a name in its directory of
// this boot, which the workload itself holds open at both ends. So nothing of ours stays for it, and attach can write to it at any time.
const stdinPipe = "stdin"

// openStdin makes the pipe anew.
func openStdin(dir string) (*os.File, error) {
	path := filepath.Join(dir, stdinPipe)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return nil, fmt.Errorf("make pipe %s: %w", path, err)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open pipe %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

func attachVerb() verb {
	return verb{name: "attach", args: "NAME", what: "pass a running container's output on, and input and signals to it", min: 1, max: 1, lister: "containers",
		more: `What the container says from now on is printed, from the journal, standard error with standard output. One that was made with -i
reads what is typed here. Signals to this command reach the container, three interrupts end this command only. It ends with the
workload, and with its exit code.`,
		exits:    "Else that of the workload.",
		examples: []string{"containerctl run -di --name calc debian:13 bc", "echo 6*7 | containerctl attach calc"},
		setup: func(s *flagset.Set) action {
			f := &attachFlags{proxy: true}
			s.Bool(&f.noStdin, "no-stdin", "leave standard input alone")
			s.Bool(&f.proxy, "sig-proxy", "=false: signals are this command's only")
			return f.run
		}}
}

type attachFlags struct{ noStdin, proxy bool }

func (f *attachFlags) run(ctx context.Context, c *call) error {
	k, err := c.container(c.args[0])
	if err != nil {
		return err
	}
	st, err := c.running(k)
	if err != nil {
		return err
	}
	if st.Status == run.StatePaused || frozen(st.Pid) {
		return fmt.Errorf("%s is paused: containerctl unpause %s", k.Name, k.Name)
	}
	conn := findAttachment(c.bundle(k.Name))
	if conn != nil {
		conn.Close()
	}
	if conn != nil || k.Instance != "" { // the one of Env.once has no socket
		return fmt.Errorf("%s runs in the foreground: its input and output are with who started it", k.Name)
	}
	ctx, leave := context.WithCancel(context.WithoutCancel(ctx))
	defer leave()
	o := &output{call: c, k: k}
	if err := o.begin(ctx); err != nil { // before there is input that is answered
		return err
	}
	if k.Stdin && !f.noStdin {
		if err := c.feed(k); err != nil {
			return err
		}
	}
	defer f.signals(st, leave)()
	x, err := o.untilEnd(ctx)
	switch {
	case errors.Is(err, context.Canceled):
		return nil // it goes on without us
	case err != nil:
		return err
	case x.Code != 0:
		return exit(x.Code)
	}
	return nil
}

// feed passes standard input on behind the scenes. The container has no end of input: the next attach may have more.
func (c *call) feed(k *store.Container) error {
	path := filepath.Join(c.bundle(k.Name), stdinPipe)
	pipe, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("%s reads no input from here: say --no-stdin, or start it with run -d -i", k.Name)
	}
	if err != nil {
		return err
	}
	go func() {
		io.Copy(pipe, c.In)
		pipe.Close()
	}()
	return nil
}

// signals passes signals on. HUP, the end of a terminal, and a third interrupt in a row are for this process.
func (f *attachFlags) signals(st *run.Container, leave func()) (stop func()) {
	got, done := make(chan os.Signal, 16), make(chan struct{})
	signal.Notify(got, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	go func() {
		defer close(done)
		ends := 0
		for s := range got {
			if s == unix.SIGINT || s == unix.SIGTERM {
				ends++
			}
			if s == unix.SIGHUP || ends > 2 || !f.proxy {
				leave()
				continue
			}
			st.Signal(s.(syscall.Signal))
		}
	}()
	return func() { signal.Stop(got); close(got); <-done }
}

// An output is what a container says from some moment on.
type output struct {
	*call
	k      *store.Container
	cursor string // the journal's, of the last that was shown
}

// begin leaves out what was said before.
func (o *output) begin(ctx context.Context) error {
	return o.journal(ctx, append([]string{"--lines=1"}, outputOf(o.k)...), func(j entry) error { o.cursor = j.text("__CURSOR"); return nil })
}

// show prints what comes behind the cursor.
func (o *output) show(ctx context.Context, flags ...string) error {
	flags = append(flags, "--no-tail")
	if o.cursor != "" {
		flags = append(flags, "--after-cursor="+o.cursor)
	}
	return o.journal(ctx, append(flags, outputOf(o.k)...), func(j entry) error {
		o.cursor = j.text("__CURSOR")
		_, err := fmt.Fprintln(o.Out, j.text("MESSAGE"))
		return err
	})
}

// untilEnd prints what is said until the container has ended.
func (o *output) untilEnd(ctx context.Context) (*store.Exit, error) {
	follow, stop := context.WithCancel(ctx)
	defer stop()
	shown := make(chan error, 1)
	go func() { shown <- o.show(follow, "--follow") }()
	x, err := o.waitFor(ctx, o.k)
	stop()
	if err = errors.Join(err, <-shown); err != nil {
		return nil, err
	}
	exec.Command(o.Journal, "--sync").Run() // what the journal has not written yet; if it cannot, the last lines may be missing
	return x, o.show(ctx)
}
