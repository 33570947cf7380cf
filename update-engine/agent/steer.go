package agent

import (
	"fmt"
	"time"

	"github.com/proa-os/proa/update-engine/install"
	"github.com/proa-os/proa/update-engine/state"
)

// steer is the frame of what people order: change alters the orders and says, for the history and for people, what that
// means. An entry without an event means that nothing changes.
func (a *Agent) steer(given state.Given, change func(running state.Release, o *state.Orders) (state.Entry, string, error)) (*state.Result, error) {
	return a.ordered(given, func(running state.Release) (*state.Result, error) { return a.order(running, given, change) })
}

// order is steer without its frame.
func (a *Agent) order(running state.Release, given state.Given, change func(running state.Release, o *state.Orders) (state.Entry, string, error)) (*state.Result, error) {
	orders, err := a.Store.Orders()
	if err != nil {
		return nil, err
	}
	e, text, err := change(running, &orders)
	if err != nil {
		return nil, err
	}
	r := &state.Result{Running: running, Text: text}
	if e.Event == "" {
		return r, nil
	}
	if err := a.Store.SetOrders(orders); err != nil {
		return nil, err
	}
	e.Time, e.Running, e.By = a.Now().UTC(), running.Version, given.By
	if e.Detail == "" {
		e.Detail = oneLine(given.Reason)
	}
	a.Log.Info("order taken", "order", e.Event, "version", e.Version, "by", e.By, "reason", e.Detail)
	a.remember(a.Store.AddHistory(e))
	return r, nil
}

// Hold keeps every release away until Unhold or a time, if it is not nil. What is armed is not tried.
func (a *Agent) Hold(until *time.Time, given state.Given) (*state.Result, error) {
	given.Time = a.Now().UTC()
	return a.steer(given, func(running state.Release, o *state.Orders) (state.Entry, string, error) {
		if until != nil && !until.After(given.Time) {
			return state.Entry{}, "", fmt.Errorf("hold until %s: that is past, it is %s now", until.UTC().Format(time.RFC3339), given.Time.Format(time.RFC3339))
		}
		disarmed, err := a.disarm(running, "", given)
		if err != nil {
			return state.Entry{}, "", err
		}
		o.Hold = &state.Hold{Given: given, Until: until}
		return state.Entry{Event: state.EventHeld, Release: running}, fmt.Sprintf("stays on %s: %s%s", running.Version, o.Forbid("", given.Time), disarmed), nil
	})
}

// Unhold takes a hold back.
func (a *Agent) Unhold(given state.Given) (*state.Result, error) {
	return a.steer(given, func(running state.Release, o *state.Orders) (state.Entry, string, error) {
		if o.Hold == nil {
			return state.Entry{}, "this machine is not held", nil
		}
		o.Hold = nil
		return state.Entry{Event: state.EventUnheld, Release: running}, "follows its channel again", nil
	})
}

// Pin keeps every release but one away; an empty version means the running one. What else is armed is not tried.
func (a *Agent) Pin(version string, given state.Given) (*state.Result, error) {
	given.Time = a.Now().UTC()
	q, err := a.Store.Quarantine()
	if err != nil {
		return nil, err
	}
	return a.steer(given, func(running state.Release, o *state.Orders) (state.Entry, string, error) {
		if version == "" {
			version = running.Version
		}
		next, err := newer(version, running.Version)
		if err != nil {
			return state.Entry{}, "", fmt.Errorf("pin: %w", err)
		}
		switch e := q.FindVersion(version); {
		case !next && version != running.Version:
			return state.Entry{}, "", fmt.Errorf("pin to %s: it is older than the running %s; updatectl rollback goes back, if the other slot holds it", version, running.Version)
		case e != nil && next:
			return state.Entry{}, "", fmt.Errorf("pin to %s: it is quarantined: %s; updatectl quarantine clear %s forgets that", version, e.Reason, version)
		case o.Back != nil && version == o.Back.From.Version && next:
			return state.Entry{}, "", fmt.Errorf("pin to %s: rolled back from it %s; updatectl resume forgets that", version, o.Back.Given)
		}
		disarmed, err := a.disarm(running, version, given)
		if err != nil {
			return state.Entry{}, "", err
		}
		o.Pin = &state.Pin{Given: given, Version: version}
		return state.Entry{Event: state.EventPinned, Release: state.Release{Version: version}}, fmt.Sprintf("runs %s, pinned to %s%s", running.Version, version, disarmed), nil
	})
}

// Unpin takes a pin back.
func (a *Agent) Unpin(given state.Given) (*state.Result, error) {
	return a.steer(given, func(running state.Release, o *state.Orders) (state.Entry, string, error) {
		if o.Pin == nil {
			return state.Entry{}, "this machine is not pinned", nil
		}
		was := o.Pin.Version
		o.Pin = nil
		return state.Entry{Event: state.EventUnpinned, Release: state.Release{Version: was}}, "follows its channel again", nil
	})
}

// ClearQuarantine lets a release that failed be taken again.
func (a *Agent) ClearQuarantine(version string, given state.Given) (*state.Result, error) {
	return a.steer(given, func(running state.Release, o *state.Orders) (state.Entry, string, error) {
		q, err := a.Store.Quarantine()
		if err != nil {
			return state.Entry{}, "", err
		}
		_, bad := q.Without(version)
		if len(bad) == 0 {
			return state.Entry{}, "", fmt.Errorf("release %s is not quarantined", version)
		}
		// Its boot program goes first: without tries, and not in the quarantine, it would be put there again.
		err = a.removeOthers(running, func(p install.Program) bool { return p.Name.Version == version && p.Name.Exhausted() })
		if err != nil {
			return state.Entry{}, "", err
		}
		if _, err := a.Store.ClearQuarantine(version); err != nil {
			return state.Entry{}, "", err
		}
		return state.Entry{Event: state.EventCleared, Release: bad[0].Release, Detail: "was: " + bad[0].Reason + because(given.Reason)},
			fmt.Sprintf("release %s may be taken again", version), nil
	})
}

// disarm removes what the next boot would try, unless it is the version to keep; it returns a sentence about it.
func (a *Agent) disarm(running state.Release, keep string, given state.Given) (string, error) {
	var gone []state.Release
	err := a.removeOthers(running, func(p install.Program) bool {
		armed := p.Name.Counted && p.Name.Left > 0 && p.Name.Version != keep
		if armed {
			gone = append(gone, state.Release{Version: p.Name.Version, Root: p.Root})
		}
		return armed
	})
	if err != nil || len(gone) == 0 {
		return "", err
	}
	text := ""
	for _, r := range gone {
		text += fmt.Sprintf("; release %s was armed and is not tried", r.Version)
		a.remember(a.Store.AddHistory(state.Entry{Time: given.Time, Event: state.EventDisarmed, Release: r, Running: running.Version, By: given.By, Detail: oneLine(given.Reason)}))
	}
	m, err := a.Store.Machine()
	m.Phase, m.Since, m.Target, m.Error = state.Idle, given.Time, nil, ""
	a.remember(err, a.Store.SetMachine(m))
	return text, nil
}
