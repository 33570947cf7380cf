package ctl

import (
	"context"
	"errors"
	"fmt"

	"github.com/proa-os/proa/internal/command"
	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/store"
)

func createVerb() verb {
	return verb{name: "create", args: "IMAGE [COMMAND [ARGUMENTS]]", what: "make a container, and leave it to start to start it", min: 1, max: -1, last: true, lister: "images",
		more: `All but the start is as run does it: the image is pulled if it is not there, names, addresses and ports are the container's from now on.
It runs from containerctl start on; with --restart also after every boot from then on. Without --restart it is not started again, as
docker has it. start -a passes input and output on.`,
		examples:  []string{"containerctl create --name job -v data:/data debian:13 /data/job.sh", "containerctl start -a job"},
		elsewhere: elsewhere,
		setup: func(s *flagset.Set) action {
			r := newRunFlags()
			r.later = true
			r.flags(s)
			return r.create
		}}
}

// create makes a container.
func (r *runFlags) create(ctx context.Context, c *call) error {
	if r.c.Preserve > 0 {
		return command.Wrong("create: --preserve-fds needs run: descriptors are those of who starts it")
	}
	if err := r.checkFlags(c); err != nil {
		return err
	}
	k, err := c.describe(ctx, r)
	if err != nil {
		return err
	}
	k.Waiting = true
	if err := c.unitIsFree(ctx, c.store, k.Name); err != nil {
		return err
	}
	release, err := r.add(ctx, c, k)
	if err != nil {
		return err
	}
	defer release()
	fmt.Fprintln(c.Out, k.Name)
	return nil
}

// begins notes that a container is about to be started, before anything else is done for that: from now on one with --rm that does not run
// is one to be removed.
func (c *call) begins(k *store.Container) error {
	if !k.Waiting {
		return nil
	}
	unlock, err := c.store.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	now, err := c.store.Container(k.Name)
	if err != nil {
		return err
	}
	if now.Instance != k.Instance {
		return errors.New(k.Name + " is another container by now")
	}
	now.Waiting, k.Waiting = false, false
	return c.store.UpdateContainer(now)
}
