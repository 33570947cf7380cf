package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/update-engine/install"
	"github.com/proa-os/proa/update-engine/match"
	"github.com/proa-os/proa/update-engine/reboot"
	"github.com/proa-os/proa/update-engine/state"
)

// A Userspace is what reboots that are more than Machine.Reboot need of a machine. An agent without one reboots in full, whenever it is asked to.
type Userspace interface {
	// Kernel is the boot ID of the running kernel, and for how long it has been up.
	Kernel() (id string, up time.Duration, err error)
	// Inhibitors lists who asks that the machine not be rebooted.
	Inhibitors(context.Context) ([]reboot.Inhibitor, error)
	// Leave asks for an orderly reboot, which gives those who inhibit with mode delay their moment, and returns.
	Leave(context.Context, reboot.Mode) error
	// Prepare makes the next root image ready for a soft reboot. mark is the file in state that is written as the last step of one.
	Prepare(ctx context.Context, root digest.SHA256, hashOffset int64, mark string) error
	// Undo takes back what Prepare did.
	Undo(context.Context) error
	// SetTry sets or takes away the mark that bounds a soft try from outside (proa-try.timer).
	SetTry(bool) error
}

// reboot takes the machine into the armed release, if the strategy, the plan and the inhibitors let it; else r says when and why not. All
// of that is looked at once more when only the order to reboot is missing, and all but the repository again as the last thing before it.
func (a *Agent) reboot(ctx context.Context, running, target state.Release, m *state.Machine, r *state.Result) (*state.Result, error) {
	d, err := a.mayReboot(ctx, running, target, m)
	if err != nil {
		return nil, err
	}
	if !d.Go {
		return a.wait(d, target, m, r), nil
	}
	a.progress("reboot", 0, 0)
	mode, why := a.mode(running, target)
	if mode == reboot.Soft {
		d, err = a.softly(ctx, running, target, m)
		switch {
		case err != nil:
			a.Log.Error("cannot reboot softly, rebooting in full", "to", target.Version, "error", oneLine(err.Error()))
			mode, why = reboot.Full, "a soft reboot could not be started"
		case !d.Go:
			return a.wait(d, target, m, r), nil
		}
	}
	if mode == reboot.Full {
		if d, err = a.mayReboot(ctx, running, target, m); err != nil {
			return nil, err
		}
		if d.Go {
			if d, err = a.leave(ctx, reboot.Full, running, target, m); err != nil {
				return nil, fmt.Errorf("release %s is armed, but the reboot could not be started: %w", target.Version, err)
			}
		}
		if !d.Go {
			return a.wait(d, target, m, r), nil
		}
	}
	r.Mode, r.ModeReason = string(mode), why
	r.Text = fmt.Sprintf("release %s is armed: rebooting to try it (%s: %s)", target.Version, mode, why)
	return r, nil
}

// wait is the result of an update whose reboot has to wait.
func (a *Agent) wait(d reboot.Decision, target state.Release, m *state.Machine, r *state.Result) *state.Result {
	a.Log.Info("reboot waits", "to", target.Version, "reason", d.Reason, "until", d.When)
	a.remember(a.move(m, state.Armed))
	r.Text = fmt.Sprintf("release %s is armed: %s", target.Version, d.Reason)
	if !d.When.IsZero() {
		r.AskAgain = &d.When
	}
	return r
}

// leave gives the order, if nothing stands in the way now. If it is not given, or nobody takes it, the release is armed as before.
func (a *Agent) leave(ctx context.Context, mode reboot.Mode, running, target state.Release, m *state.Machine) (reboot.Decision, error) {
	a.remember(a.move(m, state.Rebooting))
	d, err := a.goNow(ctx, mode, running, target, target.Version, m)
	if err != nil || !d.Go {
		a.remember(a.move(m, state.Armed))
	}
	return d, err
}

// goNow has the last look and gives the order: a question to the repository may have taken minutes, and writing takes as long as a busy disk
// likes, so nothing is asked or written between the two. wanted is the version that the reboot is for; the target is what runs if its boot
// program has to prove itself first.
func (a *Agent) goNow(ctx context.Context, mode reboot.Mode, running, target state.Release, wanted string, m *state.Machine) (reboot.Decision, error) {
	a.remember(a.startGap(mode, running, target))
	d, s, err := a.lookNow(ctx, wanted, m)
	if err == nil && d.Go {
		if target == running {
			a.Log.Info("rebooting to prove the boot program", "version", running.Version)
		} else {
			a.Log.Info("rebooting", "to", target.Version, "from", running.Version, "mode", mode)
		}
		if a.Userspace == nil {
			err = a.Machine.Reboot(ctx, false)
		} else {
			err = a.Userspace.Leave(ctx, mode)
		}
	}
	if err != nil || !d.Go {
		a.remember(a.Store.ChangeReboots(func(m *reboot.Memory) { m.Asked = nil }))
	}
	if err == nil && !d.Go {
		a.remember(a.keepBlocked(d, s))
	}
	return d, err
}

// mayReboot looks at everything that a reboot into target depends on: the windows and the inhibitors, then the plan and the machine's orders.
func (a *Agent) mayReboot(ctx context.Context, running, target state.Release, m *state.Machine) (reboot.Decision, error) {
	d, s, err := a.lookNow(ctx, target.Version, m)
	if err != nil {
		return d, err
	}
	a.remember(a.keepBlocked(d, s))
	if !d.Go {
		return d, nil
	}
	held, err := a.unwanted(ctx, running, target, m)
	if err == nil && held != "" {
		d = reboot.Decision{Reason: held}
	}
	return d, err
}

// lookNow decides by all but the repository, as it is now.
func (a *Agent) lookNow(ctx context.Context, wanted string, m *state.Machine) (reboot.Decision, reboot.Situation, error) {
	if err := a.refreshReboots(); err != nil {
		return reboot.Decision{}, reboot.Situation{}, err
	}
	return a.decide(ctx, wanted, *m)
}

// decide asks everything but the network, and the clock last: logind may take its time. The plan's word that a release is urgent is about no
// other.
func (a *Agent) decide(ctx context.Context, wanted string, m state.Machine) (reboot.Decision, reboot.Situation, error) {
	var s reboot.Situation
	memory, err := a.Store.Reboots()
	if err != nil {
		return reboot.Decision{}, s, err
	}
	s.Urgent = m.Answer != nil && m.Answer.Urgent && m.Answer.Offered == wanted
	var kernel string
	var up time.Duration
	if a.Userspace != nil {
		if kernel, up, err = a.Userspace.Kernel(); err != nil {
			return reboot.Decision{}, s, err
		}
		if s.Inhibitors, err = a.Userspace.Inhibitors(ctx); err != nil {
			return reboot.Decision{}, s, err
		}
	}
	s.Now = a.Now()
	s.BlockedSince = memory.Blocked.Since(s.Now, kernel, up)
	d, err := reboot.Decide(a.config().Reboot, s)
	return d, s, err
}

// keepBlocked writes down since when inhibitors alone stand in the way. Those that only want a moment never do.
func (a *Agent) keepBlocked(d reboot.Decision, s reboot.Situation) error {
	var now *reboot.Moment
	if slices.ContainsFunc(s.Inhibitors, func(i reboot.Inhibitor) bool { return !i.Delay }) {
		kernel, up, err := a.Userspace.Kernel()
		if err != nil {
			return err
		}
		now = &reboot.Moment{Kernel: kernel, Uptime: up}
	}
	return a.Store.ChangeReboots(func(m *reboot.Memory) {
		if now == nil || d.Blocked && s.BlockedSince.IsZero() {
			m.Blocked = now
		}
	})
}

// unwanted asks the repository whether the armed release is still what this machine should run, and says why if it is not. A download may
// have taken hours since it was asked, or the release has waited for a window. If it does not answer what it said last counts, for a while.
// What it says is in m afterwards.
func (a *Agent) unwanted(ctx context.Context, running, target state.Release, m *state.Machine) (string, error) {
	c := &state.Check{Time: a.Now().UTC(), Channel: a.config().Channel}
	o, err := a.ask(ctx, running, c)
	note(m, c, o, err)
	a.remember(a.Store.SetMachine(*m))
	if err != nil {
		if m.Unconfirmed(target, a.config().Channel, a.Now()) == "" {
			a.Log.Warn("cannot ask again whether the release is wanted", "version", target.Version, "error", c.Error)
			return "", nil
		}
		return "", fmt.Errorf("ask whether release %s is still wanted: %w", target.Version, err)
	}
	switch {
	case o != nil && o.name() == target:
		return "", nil
	case c.Held != "":
		return c.Held, nil
	}
	orders, err := a.Store.Orders()
	if err != nil {
		return "", err
	}
	if why := orders.Forbid(target.Version, a.Now()); why != "" {
		return why, nil
	}
	return "the channel no longer asks for it", nil
}

// mode says how a reboot from running into target, which is armed, will be.
func (a *Agent) mode(running, target state.Release) (reboot.Mode, string) {
	now, next, err := a.kernels(running.Root, target.Root)
	if err != nil {
		return reboot.Full, oneLine(err.Error())
	}
	return a.choose(target, now, next)
}

// choose is reboot.Choose with what this machine has learnt about soft reboots.
func (a *Agent) choose(target state.Release, now, next reboot.Kernel) (reboot.Mode, string) {
	if a.Userspace == nil {
		return reboot.Full, "this machine has no other way"
	}
	if m, err := a.Store.Reboots(); err == nil && m.NoSoft != nil && *m.NoSoft == target {
		return reboot.Full, "a soft reboot into it did not succeed"
	}
	return reboot.Choose(a.config().Reboot.Mode, now, next)
}

// kernels reads the boot programs of two root images; what cannot be found is zero.
func (a *Agent) kernels(running, target digest.SHA256) (now, next reboot.Kernel, err error) {
	folder, err := a.Machine.Boot()
	if err != nil {
		return now, next, err
	}
	defer folder.Close()
	list, err := install.Programs(folder)
	if err != nil {
		return now, next, err
	}
	for _, p := range list {
		if p.Root != running && p.Root != target {
			continue
		}
		k, err := kernel(folder, p.File)
		if err != nil {
			return now, next, err
		}
		if p.Root == running {
			now = k
		} else {
			next = k
		}
	}
	return now, next, nil
}

func kernel(folder install.Folder, file string) (reboot.Kernel, error) {
	f, err := folder.Open(file)
	if err != nil {
		return reboot.Kernel{}, err
	}
	defer f.Close()
	k, err := match.Kernel(f)
	if err != nil {
		return k, fmt.Errorf("boot program %s: %w", file, err)
	}
	return k, nil
}

// mustProve is why a machine reboots in full before it takes the next release after a soft reboot.
const mustProve = "the boot program has to prove itself"

// foretell fills in how the machine would reboot into an offer, before it is downloaded, and how long that took last time.
func (a *Agent) foretell(running state.Release, boot state.Boot, o *offer, r *state.Result) {
	next := reboot.Kernel{Image: o.release.Boot.Linux, CommandLine: o.release.Boot.CommandLine}
	now, _, err := a.kernels(running.Root, digest.SHA256{})
	mode, why := reboot.Full, ""
	switch {
	case err != nil:
		why = oneLine(err.Error())
	case boot.Soft:
		why = mustProve // see prove
	default:
		mode, why = a.choose(o.name(), now, next)
	}
	r.Mode, r.ModeReason = string(mode), why
	r.Text += fmt.Sprintf("; the reboot would be %s (%s)", mode, why)
	if r.LastGap = a.gaps()[string(mode)]; r.LastGap > 0 {
		r.Text += fmt.Sprintf(", which took %.0f s last time", r.LastGap)
	}
}

// gaps are the last measured gaps in seconds, by mode.
func (a *Agent) gaps() map[string]float64 {
	memory, err := a.Store.Reboots()
	if err != nil || len(memory.Gaps) == 0 {
		return nil
	}
	gaps := map[string]float64{}
	for mode, g := range memory.Gaps {
		gaps[string(mode)] = g.Seconds
	}
	return gaps
}

// waits is what a reboot into the armed release waits for, for a report.
func (a *Agent) waits(m state.Machine) string {
	if m.Phase != state.Armed {
		return ""
	}
	if m.Target != nil && a.config().Reboot.Strategy != reboot.Off {
		if why := m.Unconfirmed(*m.Target, a.config().Channel, a.Now()); why != "" {
			return why
		}
	}
	wanted := ""
	if m.Target != nil {
		wanted = m.Target.Version
	}
	d, _, err := a.decide(context.Background(), wanted, m) // the machine has time limits of its own
	switch {
	case err != nil:
		return oneLine(err.Error())
	case d.Go:
		return ""
	}
	return d.Reason
}

// startGap begins to measure a gap.
func (a *Agent) startGap(mode reboot.Mode, running, target state.Release) error {
	if a.Userspace == nil {
		return nil
	}
	kernel, up, err := a.Userspace.Kernel()
	if err != nil {
		return err
	}
	return a.Store.ChangeReboots(func(m *reboot.Memory) {
		m.Asked = &reboot.Asked{Mode: mode, From: running, To: target, Kernel: kernel, Time: a.Now().UTC(), Uptime: up}
	})
}

// measure ends it, in a boot that is healthy.
func (a *Agent) measure(running state.Release) {
	if a.Userspace == nil {
		return
	}
	kernel, up, err := a.Userspace.Kernel()
	if err == nil {
		err = a.Store.ChangeReboots(func(m *reboot.Memory) {
			if g, ok := m.Asked.Gap(a.Now().UTC(), up, kernel, running.Root); ok {
				if m.Gaps == nil {
					m.Gaps = map[reboot.Mode]reboot.Gap{}
				}
				m.Gaps[m.Asked.Mode] = g
				a.Log.Info("gap measured", "mode", m.Asked.Mode, "seconds", g.Seconds, "from", g.From, "to", g.To)
			}
			m.Asked = nil
		})
	}
	a.remember(err)
}
