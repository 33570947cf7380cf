// Package health says whether a boot is healthy: units, network, workload, and the checks of whoever runs the machine.
//
// The health gate runs on every boot, before boot-complete.target. It asks again until everything is well or the deadline is
// over; in a try the answer decides between good and the way back, otherwise it is only reported. Nothing here acts on the answer.
//
// The checks, in this order, the first that fails ends a round: the system has booted (multi-user.target), required
// units are active, no unit has failed that had not failed before the update, the network is as good as it was then, the containers are well
// (`containerctl health`), every executable in /etc/proa/health.d exits with 0.
package health

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A Check is one question. Run returns nil if all is well; it should heed its context.
type Check struct {
	Name string
	Run  func(context.Context) error
}

// Unhealthy says which check failed last when the deadline was over.
type Unhealthy struct {
	Check string
	Err   error
	After time.Duration
}

func (e *Unhealthy) Error() string {
	return fmt.Sprintf("not healthy after %s: %s: %v", e.After.Round(time.Second), e.Check, e.Err)
}

// Unwrap returns what the check said.
func (e *Unhealthy) Unwrap() error { return e.Err }

// Gate limits how long and how often is asked.
type Gate struct {
	Deadline time.Duration // for all of it
	Interval time.Duration // between two rounds
	Timeout  time.Duration // for one check
	// Notify, if not nil, is told when the answer changes.
	Notify func(check string, err error)
}

// Wait returns nil as soon as one round of the checks passes, and an *Unhealthy at the deadline.
func (g Gate) Wait(ctx context.Context, checks []Check) error {
	start := time.Now()
	deadline, cancel := context.WithTimeout(ctx, g.Deadline)
	defer cancel()
	var said string
	var last Unhealthy // what the last whole round said
	for {
		check, err := g.round(deadline, checks)
		if err == nil {
			return nil
		}
		if deadline.Err() == nil {
			last = Unhealthy{Check: check, Err: err}
		} else if last.Err != nil {
			check, err = last.Check, last.Err // the deadline cut this round short: its check did not get to say why
		}
		if now := check + ": " + err.Error(); now != said && g.Notify != nil && deadline.Err() == nil {
			said = now
			g.Notify(check, err)
		}
		t := time.NewTimer(g.Interval)
		select {
		case <-t.C:
		case <-deadline.Done():
			t.Stop()
			if ctx.Err() != nil {
				return fmt.Errorf("health check stopped: %w", ctx.Err())
			}
			return &Unhealthy{Check: check, Err: err, After: time.Since(start)}
		}
	}
}

// round asks every check until one fails.
func (g Gate) round(ctx context.Context, checks []Check) (string, error) {
	for _, c := range checks {
		one, cancel := context.WithTimeout(ctx, g.Timeout)
		err := ask(one, c)
		if err == nil && one.Err() != nil {
			err = fmt.Errorf("no answer within %s", g.Timeout)
		}
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("no answer in time: %w", err)
		}
		cancel()
		if err != nil {
			return c.Name, err
		}
	}
	return "", nil
}

// grace is how long a check may take to say what it was doing when its time was over.
const grace = 5 * time.Second

// ask runs one check, and leaves one behind that does not come back: a service manager that hangs, or a program that not even
// SIGKILL ends, must not hold up the verdict.
func ask(ctx context.Context, c Check) error {
	answer := make(chan error, 1)
	go func() { answer <- c.Run(ctx) }()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
	}
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case err := <-answer:
		return err
	case <-t.C:
		return ctx.Err()
	}
}
