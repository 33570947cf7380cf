package ctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/term"

	"github.com/proa-os/proa/internal/command"
	"github.com/proa-os/proa/runtime/bundle"
	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/run"
)

// execFlags are the flags of exec.
type execFlags struct {
	interactive, tty, detach, privileged bool
	env, fileEnv                         []string
	user, workDir                        string
}

func execVerb() verb {
	return verb{name: "exec", args: "NAME COMMAND [ARGUMENTS]", what: "run a command in a running container", min: 2, max: -1, last: true, lister: "containers",
		exits:    "Else that of the command; 126 if it cannot be executed, 127 if it is not there.",
		examples: []string{"containerctl exec -it web sh"},
		setup: func(s *flagset.Set) action {
			x := new(execFlags)
			s.Bool(&x.interactive, "i,interactive", "pass standard input on")
			s.Bool(&x.tty, "t,tty", "with a terminal")
			s.Bool(&x.detach, "d,detach", "return when it runs; its output goes nowhere")
			s.Func("e,env", "NAME[=VALUE]", "environment variable; without a value that of containerctl", setEnv(&x.env))
			s.Func("env-file", "FILE", "environment variables, one a line; --env overrules them", func(v string) error { return eachLine(v, setEnv(&x.fileEnv)) })
			s.String(&x.user, "u,user", "USER[:GROUP]", "names or numbers")
			s.String(&x.workDir, "w,workdir", "DIR", "working directory")
			s.Bool(&x.privileged, "privileged", "with all capabilities")
			return x.run
		}}
}

// run becomes oci-runtime exec.
func (x *execFlags) run(_ context.Context, c *call) error {
	k, err := c.container(c.args[0])
	if err != nil {
		return err
	}
	st, err := c.running(k)
	if err != nil {
		return err
	}
	switch {
	case st.Status == run.StatePaused || frozen(st.Pid):
		return fmt.Errorf("%s is paused: containerctl unpause %s", k.Name, k.Name)
	case x.detach && x.tty:
		return command.Wrong("exec: -d has no terminal: leave out -t")
	case x.tty && x.interactive && !term.IsTerminal(int(c.In.Fd())):
		return command.Wrong("exec: -t: standard input is no terminal: leave out -t, or -i")
	}
	flags, err := x.pass(st)
	if err != nil {
		return err
	}
	args := append(append([]string{}, c.OCIRuntime...), "--root", string(c.OCIRoot), "exec", "--shell-codes")
	args = append(append(append(args, flags...), "--"), c.args...)
	if !x.interactive || x.detach {
		if err := toNull(x.detach); err != nil {
			return err
		}
	}
	err = syscall.Exec(args[0], args, os.Environ())
	return fmt.Errorf("execute %s: %w", args[0], err)
}

// pass are the flags in oci-runtime's words, which knows numbers only.
func (x *execFlags) pass(st *run.Container) (args []string, err error) {
	if x.tty {
		args = append(args, "--tty", "--env", "TERM="+cmp.Or(os.Getenv("TERM"), "xterm"))
	}
	if x.detach {
		args = append(args, "--detach")
	}
	env := slices.Concat(x.fileEnv, x.env)
	for _, v := range env {
		args = append(args, "--env", v)
	}
	if x.workDir != "" {
		args = append(args, "--cwd", x.workDir)
	}
	if x.privileged {
		all, err := bundle.Capabilities()
		if err != nil {
			return nil, err
		}
		for _, name := range all {
			args = append(args, "--cap", name)
		}
	}
	if x.user == "" {
		return args, nil
	}
	u, err := lookupUser(st, x.user)
	if err != nil {
		return nil, err
	}
	if u.Home != "" && !slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, "HOME=") }) {
		args = append(args, "--env", "HOME="+u.Home)
	}
	for _, g := range u.Groups {
		args = append(args, "--additional-gids", strconv.FormatUint(uint64(g), 10))
	}
	return append(args, "--user", strconv.FormatUint(uint64(u.UID), 10)+":"+strconv.FormatUint(uint64(u.GID), 10)), nil
}

// lookupUser finds a user in the files of a running container.
func lookupUser(st *run.Container, user string) (bundle.User, error) {
	if st.Status != specs.StateRunning {
		return bundle.User{}, errors.New("it does not run")
	}
	root, err := os.OpenRoot(filepath.Join("/proc", strconv.Itoa(st.Pid), "root"))
	if err != nil {
		return bundle.User{}, err
	}
	defer root.Close()
	return bundle.LookupUser(root, user)
}

// toNull puts /dev/null in the place of standard input, or of all three.
func toNull(all bool) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	last := 0
	if all {
		last = 2
	}
	for fd := range last + 1 {
		if err := syscall.Dup3(int(null.Fd()), fd, 0); err != nil {
			return err
		}
	}
	return nil
}
