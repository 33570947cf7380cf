package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/proa-os/proa/update-engine/state"
)

// Busy is the error of a job while another one works.
type Busy = state.Busy

// lock starts a job, with what is configured now. It waits for Status, which everybody may ask, so that nobody can keep root from updating.
func (a *Agent) lock() (unlock func(), err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.working {
		return nil, Busy{}
	}
	if a.Refresh != nil {
		if err := a.Refresh(); err != nil {
			return nil, err
		}
	}
	a.working, a.ended = true, make(chan struct{})
	return func() {
		if a.fetched.Load() > 0 {
			a.count(func(*state.Counters) {})
		}
		a.mu.Lock()
		a.working = false
		close(a.ended)
		a.mu.Unlock()
		a.meter.stop()
	}, nil
}

// A GaveWay is the error of a job that an order ended while it asked the repository or filled the passive slot, which the next one goes on with.
type GaveWay struct {
	By string // who gave the order
}

func (g GaveWay) Error() string {
	return fmt.Sprintf("gave way to an order of %s; what is written stays, and the next update goes on from there", g.By)
}

// yielding does what takes hours on a slow line: an order need not wait for it. An order that comes when the release was just armed ends
// the job too, before it reboots.
func (a *Agent) yielding(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a.setGiveWay(cancel)
	err := do(ctx)
	a.setGiveWay(nil)
	if way := (GaveWay{}); errors.As(context.Cause(ctx), &way) {
		return way
	}
	return err
}

func (a *Agent) setGiveWay(cancel context.CancelCauseFunc) {
	a.mu.Lock()
	a.giveWay = cancel
	a.mu.Unlock()
}

// lockFor is lock for an order: a job that can give way does.
func (a *Agent) lockFor(given state.Given) (unlock func(), err error) {
	for {
		unlock, err = a.lock()
		if err == nil {
			return unlock, nil
		}
		a.mu.Lock()
		cancel, ended := a.giveWay, a.ended
		a.mu.Unlock()
		if cancel == nil {
			return nil, err
		}
		cancel(GaveWay{given.By})
		<-ended
	}
}

// ordered is job for an order.
func (a *Agent) ordered(given state.Given, do func(running state.Release) (*state.Result, error)) (*state.Result, error) {
	return a.framed(func() (func(), error) { return a.lockFor(given) }, do)
}

// job is the frame of all that is asked for: one job at a time, which begins with what runs.
func (a *Agent) job(do func(running state.Release) (*state.Result, error)) (*state.Result, error) {
	return a.framed(a.lock, do)
}

func (a *Agent) framed(lock func() (func(), error), do func(running state.Release) (*state.Result, error)) (*state.Result, error) {
	unlock, err := lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	running, err := a.Machine.Running()
	if err != nil {
		return nil, err
	}
	return do(running)
}

// asking is the frame of jobs that ask the repository: postponed until the machine is ready for that.
func (a *Agent) asking(do func(running state.Release, m *state.Machine) (*state.Result, error)) (*state.Result, error) {
	return a.job(func(running state.Release) (*state.Result, error) {
		m, err := a.Store.Machine()
		if err != nil {
			return nil, err
		}
		if err := a.ready(); err != nil {
			return nil, a.postpone(&m, err)
		}
		if a.unsettled { // a release that came back without a verdict is not in the quarantine yet
			if _, err := a.Settle(); err != nil {
				return nil, fmt.Errorf("find out what this boot is: %w", err)
			}
			if m, err = a.Store.Machine(); err != nil {
				return nil, err
			}
		}
		return do(running, &m)
	})
}
