package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/proa-os/proa/internal/slot"
	"github.com/proa-os/proa/update-engine/install"
	"github.com/proa-os/proa/update-engine/state"
)

// Apply installs what the channel offers and arms it; then it reboots, if reboot says so and nothing stands in the way. A result without an error and with
// Armed false means that there is nothing to do.
func (a *Agent) Apply(ctx context.Context, reboot bool) (*state.Result, error) {
	return a.asking(func(running state.Release, m *state.Machine) (*state.Result, error) {
		return a.apply(ctx, running, m, reboot)
	})
}

// apply is Apply without its frame.
func (a *Agent) apply(ctx context.Context, running state.Release, m *state.Machine, reboot bool) (*state.Result, error) {
	q, err := a.Store.Quarantine()
	if err != nil {
		return nil, err
	}
	boot, err := a.judge(running, q)
	if err != nil {
		return nil, err
	}
	if err := a.notLeaving(running); err != nil {
		return nil, err
	}
	if boot.Trying {
		return nil, fmt.Errorf("release %s is on trial and has not proven itself: wait for its health check, the other slot is the way back", running.Version)
	}
	if boot.Leaving {
		return nil, fmt.Errorf("release %s was rolled back, the next boot runs another: reboot first", running.Version)
	}
	if _, err := m.Phase.To(state.Checking); err != nil {
		// An interrupted job left a phase from which nothing starts: the disk, not the phase, is the truth.
		m.Phase = state.Idle
	}
	if err := a.move(m, state.Checking); err != nil {
		return nil, err
	}
	o, err := a.look(ctx, running, m)
	if errors.As(err, new(GaveWay)) {
		return nil, a.yielded(running, q, m, err)
	}
	if err != nil {
		return a.unanswered(ctx, running, boot, m, reboot, err)
	}
	if o == nil {
		if err := a.rest(m, boot); err != nil {
			return nil, err
		}
		return &state.Result{Running: running, Text: a.why(running, boot, *m, q)}, nil
	}
	if boot.Soft {
		return a.prove(ctx, running, o, reboot, m)
	}
	err = a.installOffer(ctx, running, boot, o, m)
	if errors.As(err, new(GaveWay)) {
		return nil, a.yielded(running, q, m, err)
	}
	if err != nil {
		a.countFailure(err, state.ReasonOther)
		a.Log.Error("update failed", "version", o.release.Version, "root_hash", o.release.Root.RootHash, "error", err)
		return nil, a.fail(m, err)
	}
	name := o.name()
	r := &state.Result{Running: running, Offered: &name, Armed: true, Size: o.ways[0].Size, Text: fmt.Sprintf("release %s is armed: the next boot tries it", name.Version)}
	if !reboot {
		return r, nil
	}
	return a.reboot(ctx, running, name, m, r)
}

// unanswered is an update whose look for a release ended with err. What is armed stays armed, and is rebooted into if the repository does not
// answer and has said lately that this machine should run it.
func (a *Agent) unanswered(ctx context.Context, running state.Release, boot state.Boot, m *state.Machine, reboot bool, err error) (*state.Result, error) {
	armed, armedErr := a.targetArmed(m.Target)
	if !armed {
		return nil, a.fail(m, errors.Join(err, armedErr))
	}
	if restErr := a.rest(m, boot); restErr != nil {
		return nil, errors.Join(err, restErr)
	}
	if !reboot || m.Unconfirmed(*m.Target, a.config().Channel, a.Now()) != "" {
		return nil, fmt.Errorf("release %s stays armed: %w", m.Target.Version, err)
	}
	r := &state.Result{Running: running, Offered: m.Target, Armed: true}
	return a.reboot(ctx, running, *m.Target, m, r)
}

// yielded is the end of an update that gave way: nothing has failed, and it may have armed the release before it heard of the order.
func (a *Agent) yielded(running state.Release, q state.Quarantine, m *state.Machine, err error) error {
	a.Log.Info("update ended by an order", "error", err)
	boot, judgeErr := a.judge(running, q)
	if judgeErr != nil {
		return errors.Join(err, judgeErr) // the next Status finds out
	}
	return errors.Join(err, a.rest(m, boot))
}

// targetArmed reports whether the release that was installed last is armed, and nobody has anything against it.
func (a *Agent) targetArmed(target *state.Release) (bool, error) {
	if target == nil {
		return false, nil
	}
	q, qErr := a.Store.Quarantine()
	orders, err := a.Store.Orders()
	if err := errors.Join(qErr, err); err != nil || q.Find(target.Root) != nil || orders.Forbid(target.Version, a.Now()) != "" {
		return false, err
	}
	folder, err := a.Machine.Boot()
	if err != nil {
		return false, err
	}
	defer folder.Close()
	return isArmed(folder, *target)
}

// rest is the phase of a machine on which nothing has to be done.
func (a *Agent) rest(m *state.Machine, boot state.Boot) error {
	m.Phase, m.Error = state.Idle, ""
	if boot.Next != boot.File && m.Target != nil {
		m.Phase = state.Armed
	}
	return a.Store.SetMachine(*m)
}

// installOffer brings an offer into the passive slot and arms it, unless it is armed already.
func (a *Agent) installOffer(ctx context.Context, running state.Release, boot state.Boot, o *offer, m *state.Machine) error {
	folder, err := a.Machine.Boot()
	if err != nil {
		return err
	}
	defer folder.Close()
	name := o.name()
	armed, err := isArmed(folder, name)
	if err != nil {
		return err
	}
	m.Target, m.Liars = &name, nil
	if m.FailedUnits, err = a.Machine.FailedUnits(ctx); err != nil {
		return fmt.Errorf("list failed units: %w", err)
	}
	a.lookAround(ctx, m)
	if armed {
		m.Phase = state.Armed
		return a.Store.SetMachine(*m)
	}
	if err := room(folder, running, o.release); err != nil {
		return err
	}
	if err := a.move(m, state.Downloading); err != nil {
		return err
	}
	if err := a.stream(ctx, running, folder, o, m); err != nil {
		return a.refuse(running, name, err)
	}
	a.Log.Info("release armed", "version", name.Version, "root_hash", name.Root, "running", running.Version)
	a.remember(a.move(m, state.Armed),
		a.Store.AddHistory(state.Entry{Time: a.Now().UTC(), Event: state.EventArmed, Release: name, Running: running.Version}))
	return nil
}

// remember takes the errors of writing down what has happened on the ESP: they do not undo it, and the next start finds it there.
func (a *Agent) remember(errs ...error) {
	if err := errors.Join(errs...); err != nil {
		a.Log.Error("cannot keep the update state", "error", oneLine(err.Error()))
	}
}

// isArmed reports whether the boot program of a release is at its counted name: then all before the commit point is done.
func isArmed(f install.Folder, name state.Release) (bool, error) {
	list, err := install.Programs(f)
	if err != nil {
		return false, err
	}
	for _, p := range list {
		if p.Root == name.Root && p.Name.Counted && p.Name.Left == slot.Tries && p.Name.Version == name.Version {
			return true, nil
		}
	}
	return false, nil
}

// refuse quarantines a release that contradicts itself; other errors say nothing about the release.
func (a *Agent) refuse(running, name state.Release, err error) error {
	var bad *install.BadRelease
	if !errors.As(err, &bad) {
		return err
	}
	return errors.Join(err, a.quarantine(state.EventRefused, running, name, bad.Reason))
}

// quarantine remembers for good that a release is bad, first in the list that is asked, then in the history that is read.
func (a *Agent) quarantine(event state.Event, running, bad state.Release, reason string) error {
	reason = oneLine(reason)
	now := a.Now().UTC()
	if err := a.Store.AddQuarantine(state.Quarantined{Release: bad, Reason: reason, Time: now}); err != nil {
		return err
	}
	a.Log.Warn("release quarantined", "version", bad.Version, "root_hash", bad.Root, "running", running.Version, "reason", reason)
	return a.Store.AddHistory(state.Entry{Time: now, Event: event, Release: bad, Running: running.Version, Detail: reason})
}
