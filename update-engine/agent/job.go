package agent

import (
	"fmt"

	"github.com/proa-os/proa/update-engine/state"
)

// Busy is the error of a job while another one works.
type Busy = state.Busy

// lock starts a job. It waits for Status, which everybody may ask, so that nobody can keep root from updating.
func (a *Agent) lock() (unlock func(), err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.working {
		return nil, Busy{}
	}
	a.working = true
	return func() {
		if a.fetched.Load() > 0 {
			a.count(func(*state.Counters) {})
		}
		a.mu.Lock()
		a.working = false
		a.mu.Unlock()
		a.meter.stop()
	}, nil
}

// job is the frame of all that is asked for: one job at a time, which begins with what runs.
func (a *Agent) job(do func(running state.Release) (*state.Result, error)) (*state.Result, error) {
	unlock, err := a.lock()
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
