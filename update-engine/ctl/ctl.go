// Package ctl is updatectl: its commands, and what they print.
//
// Answers are the update agent's, as text for people or, with --json, as they come: check, apply and the orders give a state.Result, status
// and why a state.Report, history an array of state.Entry, quarantine list an array of state.Quarantined. Their keys are documented
// there; keys are added, and none is renamed or taken away.
package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/proa-os/proa/update-engine/state"
)

// An Agent answers: bus.Client.
type Agent interface {
	Check(context.Context) (*state.Result, error)
	Apply(ctx context.Context, reboot bool, progress func(stage string, done, total uint64)) (*state.Result, error)
	Rollback(ctx context.Context, version, reason string, reboot bool) (*state.Result, error)
	Order(ctx context.Context, method, reason string) (*state.Result, error)
	OrderVersion(ctx context.Context, method, version, reason string) (*state.Result, error)
	Hold(ctx context.Context, until time.Time, reason string) (*state.Result, error)
	Status(context.Context) (*state.Report, error)
	History(context.Context) ([]state.Entry, error)
	Metrics(context.Context) (string, error)
}

// A Terminal is where updatectl talks, and to whom.
type Terminal struct {
	Connect       func() (Agent, error) // asked when a command needs it
	Out, Progress io.Writer
	Now           func() time.Time
}

// show prints an answer.
func (t Terminal) show(asJSON bool, v any, text string) error {
	if !asJSON {
		_, err := fmt.Fprintln(t.Out, text)
		return err
	}
	e := json.NewEncoder(t.Out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// result asks for a state.Result and prints it.
func (t Terminal) result(asJSON bool, ask func(Agent) (*state.Result, error), text func(*state.Result) string) error {
	a, err := t.Connect()
	if err != nil {
		return err
	}
	r, err := ask(a)
	if err != nil {
		return err
	}
	return t.show(asJSON, r, text(r))
}

func said(r *state.Result) string { return r.Text }

// apply follows a job that is already under way, the timer's for example, to its end, and then asks for its own.
func (t Terminal) apply(ctx context.Context, a Agent, reboot, quiet bool) (*state.Result, error) {
	p := &lines{w: t.Progress, now: t.Now, start: t.Now()}
	progress := p.show
	if quiet {
		progress = func(string, uint64, uint64) {}
	}
	for {
		r, err := a.Apply(ctx, reboot, progress)
		if !errors.Is(err, state.Busy{}) {
			return r, err
		}
		if err := t.follow(ctx, a, progress); err != nil {
			return nil, err
		}
	}
}

// follow waits until the agent's job ends.
func (t Terminal) follow(ctx context.Context, a Agent, progress func(string, uint64, uint64)) error {
	fmt.Fprintln(t.Progress, "another job is under way, following it")
	for {
		r, err := a.Status(ctx)
		if err != nil {
			return err
		}
		if r.Progress == nil {
			return nil
		}
		progress(r.Progress.Stage, uint64(max(r.Progress.Done, 0)), uint64(max(r.Progress.Total, 0)))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}
