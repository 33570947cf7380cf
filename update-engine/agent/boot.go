package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/proa-os/proa/internal/slot"
	"github.com/proa-os/proa/update-engine/health"
	"github.com/proa-os/proa/update-engine/reboot"
	"github.com/proa-os/proa/update-engine/state"
)

// Settle finds out what this boot is and brings the agent's memory in line: releases that have used up their tries are
// quarantined, jobs that a power cut ended are ended here too. On the ESP it changes nothing but the name of a boot program whose soft try has not come about. With an error, what could be found
// out is returned too.
func (a *Agent) Settle() (state.Boot, error) {
	boot, err := a.settleBoot()
	a.unsettled = err != nil
	return boot, err
}

func (a *Agent) settleBoot() (state.Boot, error) {
	running, err := a.Machine.Running()
	if err != nil {
		return state.Boot{}, err
	}
	softErr := a.settleSoft(running, false)
	q, err := a.Store.Quarantine()
	boot, judgeErr := a.judge(running, q)
	if err := errors.Join(judgeErr, err, softErr); err != nil {
		return boot, err
	}
	for _, lost := range boot.Lost {
		if err := a.quarantine(state.EventBad, running, lost, state.LostReason); err != nil {
			return boot, err
		}
		a.count(func(c *state.Counters) { c.Fail(state.ReasonHealth) })
	}
	if err := a.forgetRollback(running, boot); err != nil {
		return boot, err
	}
	m, err := a.Store.Machine()
	if err != nil {
		return boot, err
	}
	was := m.Phase
	settle(&m, running, boot)
	if m.Phase != was {
		m.Since = a.Now().UTC()
		a.Log.Info("update state settled", "phase", m.Phase, "was", was, "running", running.Version, "error", m.Error)
		err = a.Store.SetMachine(m)
	}
	return boot, err
}

// forgetRollback drops an order that a power cut kept from being carried out: what it should leave runs, and boots next.
func (a *Agent) forgetRollback(running state.Release, boot state.Boot) error {
	orders, err := a.Store.Orders()
	if err != nil || orders.Back == nil || orders.Back.From.Root != running.Root || boot.Leaving {
		return err
	}
	a.Log.Warn("rollback was interrupted and has not happened", "from", running.Version, "to", orders.Back.To.Version)
	orders.Back = nil
	return a.Store.SetOrders(orders)
}

// settle corrects what the state file says by what the disk says.
func settle(m *state.Machine, running state.Release, boot state.Boot) {
	target := func() string {
		if m.Target == nil {
			return "an update"
		}
		return "release " + m.Target.Version
	}
	switch {
	case boot.Trying:
		m.Phase, m.Target, m.Error = state.Trying, &running, ""
	case m.Target != nil && slices.Contains(boot.Lost, *m.Target):
		m.Phase, m.Error = state.Failed, target()+": "+state.LostReason
	case boot.Pending:
		// The boot program is hidden until the machine is left, or the soft reboot is given up.
	case m.Phase == state.Armed || m.Phase == state.Rebooting || m.Phase == state.Trying:
		switch {
		case m.Target != nil && m.Target.Root == running.Root:
			m.Phase, m.Error = state.Good, "" // marked good, then power was lost before it was written down
		case boot.Next != boot.File:
			m.Phase = state.Armed
		default:
			m.Phase, m.Error = state.Failed, target()+" did not become good"
		}
	case m.Phase == state.Checking || m.Phase == state.Downloading || m.Phase == state.Writing:
		if n, err := slot.Parse(boot.Next); err == nil && boot.Next != boot.File && m.Target != nil && n.Version == m.Target.Version {
			m.Phase, m.Error = state.Armed, "" // the commit point is behind, and could not be written down
			return
		}
		m.Phase, m.Error = state.Failed, target()+" was interrupted while "+string(m.Phase)+": apply it again"
	}
}

// Health waits for the verdict of the health checks and acts on it: a try becomes good, or bad and the machine goes back.
// The error says that this boot is not healthy, whatever was done about it.
func (a *Agent) Health(ctx context.Context, gate health.Gate, checks func(before state.Machine) []health.Check) error {
	running, err := a.Machine.Running()
	if err != nil {
		return err
	}
	softErr := a.settleSoft(running, true)
	a.remember(a.Store.ChangeReboots(func(m *reboot.Memory) { m.Blocked = nil })) // nobody has held up a reboot of this boot
	boot, settleErr := a.Settle()
	m, machineErr := a.Store.Machine()
	q, quarantineErr := a.Store.Quarantine()
	if err := errors.Join(softErr, settleErr, machineErr, quarantineErr); err != nil {
		if !boot.Trying {
			return err
		}
		// State that is full, read-only or damaged must not keep a try from its verdict.
		a.Log.Error("cannot keep or read the update state, judging without it", "error", oneLine(err.Error()))
	}
	if boot.Trying {
		a.Log.Info("trying release", "version", running.Version, "root_hash", running.Root, "tries_left", boot.Left)
		if e := q.Find(running.Root); e != nil {
			return a.bad(ctx, running, boot, &m, fmt.Errorf("it is quarantined: %s", e.Reason))
		}
	}
	gate.Notify = func(check string, err error) { a.Log.Info("not healthy yet", "check", check, "error", err) }
	if err := gate.Wait(ctx, checks(m)); err != nil {
		if ctx.Err() != nil || !boot.Trying {
			a.Log.Error("boot is not healthy", "version", running.Version, "error", err)
			return err // stopped from outside is no verdict; a release that was good once stays
		}
		return a.bad(ctx, running, boot, &m, err)
	}
	a.measure(running)
	if !boot.Trying {
		a.Log.Info("boot is healthy", "version", running.Version)
		return nil
	}
	if boot.Soft {
		return a.goodSoftly(running, &m)
	}
	return a.good(running, boot, &m)
}

// lookAround remembers what worked before an update; what cannot be looked at is not held against the release.
func (a *Agent) lookAround(ctx context.Context, m *state.Machine) {
	m.Network = nil
	if a.Network == nil {
		return
	}
	n, err := a.Network(ctx)
	if err != nil {
		a.Log.Warn("cannot look at the network", "error", err)
		return
	}
	m.Network = &n
}

// good takes the counter from the name of the running boot program: from now on it boots without conditions.
func (a *Agent) good(running state.Release, boot state.Boot, m *state.Machine) error {
	if err := a.rename(boot.File, slot.MarkGood); err != nil {
		return fmt.Errorf("make release %s good: %w", running.Version, err)
	}
	a.Log.Info("release good", "version", running.Version, "root_hash", running.Root)
	m.Target, m.FailedUnits, m.Network = nil, nil, nil
	a.remember(a.endRollback(running), a.move(m, state.Good),
		a.Store.AddHistory(state.Entry{Time: a.Now().UTC(), Event: state.EventGood, Release: running, Running: running.Version}))
	return nil
}

// endRollback forgets the release that was left by hand, once a newer one is good.
func (a *Agent) endRollback(good state.Release) error {
	orders, err := a.Store.Orders()
	if err != nil || orders.Back == nil || slot.Compare(good.Version, orders.Back.From.Version) <= 0 {
		return err
	}
	orders.Back = nil
	return a.Store.SetOrders(orders)
}

// NoWayBack says that a try is bad and that there is nothing better to boot: the machine stays up as it is.
type NoWayBack struct{ Reason error }

func (e *NoWayBack) Error() string {
	return fmt.Sprintf("%v; no other release can boot, so this one stays", e.Reason)
}

// Unwrap returns what is bad about the try.
func (e *NoWayBack) Unwrap() error { return e.Reason }

// bad goes back: the release is condemned, then the machine reboots.
func (a *Agent) bad(ctx context.Context, running state.Release, boot state.Boot, m *state.Machine, reason error) error {
	if err := a.condemn(running, boot, m, reason); err != nil {
		return err
	}
	if err := a.Machine.Reboot(ctx, true); err != nil {
		return fmt.Errorf("go back from release %s: %w", running.Version, err)
	}
	return reason
}

// condemn quarantines a release that is tried first, so that the verdict outlives a power cut in any later step (the next try
// of it then fails at once); then its boot program loses its tries. Nothing that goes wrong keeps the machine from going back, but that
// there is nothing to go back to.
func (a *Agent) condemn(running state.Release, boot state.Boot, m *state.Machine, reason error) error {
	if boot.WayBack == "" {
		a.Log.Error("release bad, but there is no other to go back to", "version", running.Version, "reason", reason)
		return &NoWayBack{reason}
	}
	if err := a.quarantine(state.EventBad, running, running, reason.Error()); err != nil {
		a.Log.Error("cannot keep the verdict", "error", err) // going back matters more
	}
	_ = a.fail(m, fmt.Errorf("release %s: %w", running.Version, reason))
	if boot.Soft {
		// The loader does not see its boot program.
		a.remember(a.verdict(running, reboot.Bad))
	} else if err := a.rename(boot.File, slot.MarkBad); err != nil {
		a.Log.Error("cannot take the tries from the boot program, they run out by reboots", "file", boot.File, "error", err)
	}
	a.countFailure(reason, state.ReasonHealth)
	a.Log.Error("release bad, going back", "version", running.Version, "to", boot.WayBack, "reason", oneLine(reason.Error()))
	return nil
}

// EndTry condemns the release that is tried because nobody judges it; whoever asks reboots the machine. A boot that is no try is left alone.
func (a *Agent) EndTry(reason string) error {
	running, err := a.Machine.Running()
	if err != nil {
		return err
	}
	q, quarantineErr := a.Store.Quarantine()
	boot, err := a.judge(running, q)
	if err != nil && !boot.Trying {
		return err
	}
	if !boot.Trying || q.Find(running.Root) != nil && boot.Left == 0 && boot.Next != boot.File {
		return nil // no try, or condemned already, and the reboot has not come
	}
	m, machineErr := a.Store.Machine()
	a.remember(quarantineErr, machineErr, err)
	tried := state.Release{Version: boot.Version, Root: running.Root}
	return a.condemn(tried, boot, &m, errors.New(reason))
}

// rename gives a boot program the name of a verdict.
func (a *Agent) rename(file string, verdict func(string) (string, error)) error {
	name, err := verdict(file)
	if err != nil || name == file {
		return err
	}
	folder, err := a.Machine.Boot()
	if err != nil {
		return err
	}
	defer folder.Close()
	return folder.Rename(file, name)
}
