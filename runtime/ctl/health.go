package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/unit"
)

// A report is the health of one container.
type report struct {
	Name    string `json:"name"`
	Healthy bool   `json:"healthy"`
	Reason  string `json:"reason,omitempty"` // why not
}

func healthVerb() verb {
	return verb{name: "health", args: "[NAME...]", what: "find out whether containers run and answer", max: -1, lister: "containers", json: true,
		more: `Every container that starts at boot must run, and its --health-cmd must succeed, in as many tries as
--health-retries says. Each one that does not is a line on standard output, and the exit status is 1. The update
agent asks this before it declares a new release good.`,
		setup: plain(health)}
}

// health checks the named containers, or all that are meant to run, at the same time.
func health(ctx context.Context, c *call) error {
	ks, err := c.meantToRun(ctx)
	if err != nil {
		return err
	}
	vs, err := c.views(ctx, ks)
	if err != nil {
		return err
	}
	reports := make([]report, len(vs))
	var wg sync.WaitGroup
	for i, v := range vs {
		wg.Go(func() { reports[i] = c.check(ctx, v) })
	}
	wg.Wait()
	ill := false
	for _, r := range reports {
		if !r.Healthy {
			ill = true
			if !c.asJSON {
				fmt.Fprintf(c.Out, "%s: %s\n", r.Name, r.Reason)
			}
		}
	}
	if c.asJSON {
		if err := c.json(reports); err != nil {
			return err
		}
	}
	if ill {
		return exit(1)
	}
	return nil
}

// meantToRun are the named containers, or those that start at boot and declared ones that are not stopped.
func (c *call) meantToRun(ctx context.Context) (ks []*store.Container, err error) {
	for _, name := range c.args {
		k, err := c.container(name)
		if err != nil {
			return nil, err
		}
		ks = append(ks, k)
	}
	if len(c.args) > 0 {
		return ks, nil
	}
	all, err := c.store.Containers()
	if err != nil {
		return nil, err
	}
	declared, err := c.declaredUp(ctx, all)
	for _, k := range all {
		// One that somebody has stopped for good, or that a power cut has left half made or half removed, is not.
		if unit.Enabled(c.UnitDir, k.Name) || declared[k.Name] {
			ks = append(ks, k)
		}
	}
	return ks, err
}

// check finds out about one container. One that was restarted on failure and ended well is done, not ill.
func (e *Env) check(ctx context.Context, v view) report {
	r := report{Name: v.Name}
	switch {
	case v.Status == "exited" && v.Restart == "on-failure" && v.Exit.Code == 0:
		r.Healthy = true
		return r
	case v.Status == "exited":
		r.Reason = fmt.Sprintf("has %s; see containerctl logs %s", v.Exit, v.Name)
		return r
	case v.Status != "running":
		r.Reason = fmt.Sprintf("is %s; see containerctl logs %s", v.Status, v.Name)
		return r
	case v.Health == nil:
		r.Healthy = true
		return r
	}
	for try := 1; ; try++ {
		err := e.tryHealth(ctx, v.Container)
		if err == nil {
			r.Healthy = true
			return r
		}
		if try >= v.Health.Retries {
			r.Reason = fmt.Sprintf("health check failed %d times: %v", try, err)
			return r
		}
		select {
		case <-time.After(min(v.Health.Interval, askInterval)):
		case <-ctx.Done():
			r.Reason = "health check: " + ctx.Err().Error()
			return r
		}
	}
}

// askInterval is the most between tries when somebody waits for the answer.
const askInterval = 5 * time.Second

// tryHealth runs the command in the container once.
func (e *Env) tryHealth(ctx context.Context, c *store.Container) error {
	ctx, cancel := context.WithTimeout(ctx, c.Health.Timeout)
	defer cancel()
	args := append(append([]string{}, e.OCIRuntime[1:]...), "--root", string(e.OCIRoot), "exec", "--", c.Name)
	cmd := exec.CommandContext(ctx, e.OCIRuntime[0], append(args, c.Health.Command...)...)
	var out bytes.Buffer
	cmd.Stdout = &limitWriter{w: &out, left: 4096}
	cmd.Stderr = cmd.Stdout
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("no answer within %v", c.Health.Timeout)
	}
	if text := strings.Join(strings.Fields(out.String()), " "); text != "" {
		return errors.New(printable(err.Error() + ": " + text))
	}
	return err
}
