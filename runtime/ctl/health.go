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

// health checks the named containers, or all that are meant to run, at the same time.
func (e *Env) health(ctx context.Context, words []string, asJSON bool) (int, error) {
	s, err := e.open()
	if err != nil {
		return 1, err
	}
	all, err := s.Containers()
	if err != nil {
		return 1, err
	}
	var cs []*store.Container
	if len(words) > 0 {
		for _, name := range words {
			c, err := s.Container(name)
			if err != nil {
				return 1, err
			}
			cs = append(cs, c)
		}
	} else {
		for _, c := range all {
			// One that somebody has stopped for good, or that a power cut has left half made or half removed, is not.
			if unit.Enabled(e.UnitDir, c.Name) {
				cs = append(cs, c)
			}
		}
	}
	vs, err := e.views(ctx, cs)
	if err != nil {
		return 1, err
	}
	reports := make([]report, len(vs))
	var wg sync.WaitGroup
	for i, v := range vs {
		wg.Go(func() { reports[i] = e.check(ctx, v) })
	}
	wg.Wait()
	code := 0
	for _, r := range reports {
		if !r.Healthy {
			code = 1
			if !asJSON {
				fmt.Fprintf(e.Out, "%s: %s\n", r.Name, r.Reason)
			}
		}
	}
	if asJSON {
		return code, e.json(reports)
	}
	return code, nil
}

// check finds out about one container. One that was restarted on failure and ended well is done, not ill.
func (e *Env) check(ctx context.Context, v view) report {
	r := report{Name: v.Name}
	if v.Status == "stopped" && v.Restart == "on-failure" {
		r.Healthy = true
		return r
	}
	if v.Status != "running" {
		r.Reason = fmt.Sprintf("is %s; see containerctl logs %s", v.Status, v.Name)
		return r
	}
	if v.Health == nil {
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
		case <-time.After(v.Health.Interval):
		case <-ctx.Done():
			r.Reason = "health check: " + ctx.Err().Error()
			return r
		}
	}
}

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
