package ctl

import (
	"context"
	"fmt"
	"os"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/proa-os/proa/runtime/flagset"
)

// execFlags are the flags of exec, passed on to oci-runtime.
type execFlags struct {
	args        []string
	interactive bool
}

func execVerb() verb {
	return verb{name: "exec", args: "NAME COMMAND [ARGUMENTS]", what: "run a command in a running container", min: 2, max: -1, last: true, lister: "containers",
		setup: func(s *flagset.Set) action {
			x := new(execFlags)
			pass := func(names, meta, usage, flag string) {
				s.Func(names, meta, usage, func(v string) error {
					x.args = append(x.args, flag, v)
					return nil
				})
			}
			s.Bool(&x.interactive, "i,interactive", "accepted: standard input is always passed on")
			pass("e,env", "NAME=VALUE", "environment variable", "--env")
			pass("u,user", "UID[:GID]", "numeric user and group", "--user")
			pass("w,workdir", "DIR", "working directory", "--cwd")
			return x.run
		}}
}

// run becomes oci-runtime exec.
func (x *execFlags) run(_ context.Context, c *call) error {
	k, err := c.container(c.args[0])
	if err != nil {
		return err
	}
	if st, err := c.OCIRoot.Load(k.Name); err != nil || st.Status != specs.StateRunning {
		return fmt.Errorf("%s does not run: start it first: containerctl start %s", k.Name, k.Name)
	}
	args := append(append([]string{}, c.OCIRuntime...), "--root", string(c.OCIRoot), "exec")
	args = append(append(append(args, x.args...), "--"), c.args...)
	err = syscall.Exec(args[0], args, os.Environ())
	return fmt.Errorf("execute %s: %w", args[0], err)
}
