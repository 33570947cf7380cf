package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/proa-os/proa/internal/slot"
	"github.com/proa-os/proa/update-engine/install"
	"github.com/proa-os/proa/update-engine/match"
	"github.com/proa-os/proa/update-engine/reboot"
	"github.com/proa-os/proa/update-engine/state"
)

// softly reboots into the armed release without the kernel. The order of what is written, each harmless if it is the last one
// that happened:
//
//  1. reboot.json names the try: the release is armed, so the next start of the kernel tries it in full, and the note is void
//  2. its boot program gets a name that no loader sees: the next start of the kernel runs what runs now, finds the note without the mark,
//     and arms the release again
//  3. /run has the next root mounted, and the mark of proa-try.timer: gone with the kernel
//  4. the mark, written by init/nextroot when everything has stopped: from here on a start of the kernel means that the try has failed
//  5. a verdict: see goodSoftly and condemn
//
// A decision that is not to go, or an error, means that the release is armed as before.
func (a *Agent) softly(ctx context.Context, running, target state.Release, m *state.Machine) (d reboot.Decision, err error) {
	kernel, _, err := a.Userspace.Kernel()
	if err != nil {
		return d, err
	}
	if err := a.Store.ForgetLeft(); err != nil {
		return d, err
	}
	try := &reboot.Try{Release: target, Kernel: kernel, Time: a.Now().UTC()}
	if err := a.Store.ChangeReboots(func(m *reboot.Memory) { m.Try = try }); err != nil {
		return d, err
	}
	defer func() {
		if err != nil || !d.Go {
			err = errors.Join(err, a.Userspace.SetTry(false), a.Userspace.Undo(context.WithoutCancel(ctx)), a.rearm(try))
		}
	}()
	offset, err := a.hide(try)
	if err != nil {
		return d, err
	}
	if err := a.Userspace.Prepare(ctx, target.Root, offset, a.Store.LeftFile()); err != nil {
		return d, err
	}
	if err := a.Userspace.SetTry(true); err != nil {
		return d, err
	}
	if d, err = a.mayReboot(ctx, running, target, m); err != nil || !d.Go {
		return d, err
	}
	return a.leave(ctx, reboot.Soft, running, target, m)
}

// hide takes the boot program of a try out of the loader's sight, and returns the hash offset of its root image.
func (a *Agent) hide(t *reboot.Try) (hashOffset int64, err error) {
	folder, err := a.Machine.Boot()
	if err != nil {
		return 0, err
	}
	defer folder.Close()
	list, err := install.Programs(folder)
	if err != nil {
		return 0, err
	}
	i := slices.IndexFunc(list, func(p install.Program) bool { return p.Root == t.Root && p.Name.Counted })
	if i < 0 {
		return 0, fmt.Errorf("release %s is not armed", t.Version)
	}
	if hashOffset, err = offsetOf(folder, list[i].File); err != nil {
		return 0, err
	}
	return hashOffset, folder.Rename(list[i].File, slot.Temporary(t.Version))
}

func offsetOf(folder install.Folder, file string) (int64, error) {
	f, err := folder.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	_, offset, err := match.RootHash(f)
	return offset, err
}

// rearm gives the boot program of a try its counted name again, and forgets the try. Doing it twice is no error.
func (a *Agent) rearm(t *reboot.Try) error {
	if err := a.show(t); err != nil {
		return fmt.Errorf("arm release %s again: %w", t.Version, err)
	}
	return a.forgetTry(t)
}

// show undoes hide, if there is something to undo.
func (a *Agent) show(t *reboot.Try) error {
	armed, err := slot.Arm(t.Version)
	if err != nil {
		return err
	}
	folder, err := a.Machine.Boot()
	if err != nil {
		return err
	}
	defer folder.Close()
	list, err := install.Programs(folder)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(list, func(p install.Program) bool { return p.Root == t.Root }) {
		return nil // a cut in a rename has left both names
	}
	if err := folder.Rename(slot.Temporary(t.Version), armed); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (a *Agent) forgetTry(t *reboot.Try) error {
	return errors.Join(a.Store.ChangeReboots(func(m *reboot.Memory) {
		if m.Try != nil && m.Try.Release == t.Release {
			m.Try = nil
		}
	}), a.Store.ForgetLeft())
}

// try returns the soft try that is noted, and what this boot is in its view.
func (a *Agent) try(running state.Release) (*reboot.Try, reboot.Start, error) {
	if a.Userspace == nil {
		return nil, reboot.Plain, nil
	}
	memory, err := a.Store.Reboots()
	if err != nil || memory.Try == nil {
		return nil, reboot.Plain, err
	}
	kernel, _, err := a.Userspace.Kernel()
	if err != nil {
		return nil, reboot.Plain, err
	}
	left, err := a.Store.Left()
	if err != nil {
		return nil, reboot.Plain, err
	}
	return memory.Try, memory.Try.Judge(kernel, running.Root, left), nil
}

// notLeaving is an error while the machine leaves its userspace for a soft try, whose boot program must stay where it is.
func (a *Agent) notLeaving(running state.Release) error {
	t, start, err := a.try(running)
	if err == nil && start == reboot.Pending {
		err = fmt.Errorf("a soft reboot into release %s is under way", t.Version)
	}
	return err
}

// afterSoft corrects what the names on the ESP say of this boot by what a soft reboot has to do with it.
func (a *Agent) afterSoft(running state.Release, b state.Boot) (state.Boot, error) {
	t, start, err := a.try(running)
	if err != nil {
		return b, err
	}
	switch start {
	case reboot.Trying, reboot.Condemned:
		b.Soft, b.Trying, b.Left = true, true, 0
		b.File, b.Version = slot.Temporary(t.Version), t.Version
	case reboot.Proven:
		b.Soft, b.Trying, b.Left = true, false, 0
	case reboot.Pending:
		b.Pending = true
	}
	return b, nil
}

// patience is how long a machine may take to leave its userspace: as long as soft-reboot.target may, and the delay locks before.
const patience = 35 * time.Minute

// settleSoft ends what a soft try has left behind. starting says that userspace is starting now: a try that is still to come then has
// not come about.
func (a *Agent) settleSoft(running state.Release, starting bool) error {
	t, start, err := a.try(running)
	if err != nil {
		return err
	}
	switch start {
	case reboot.Lost:
		a.Log.Error("soft try had no verdict", "version", t.Version, "running", running.Version)
		if err := a.quarantine(state.EventBad, running, t.Release, "its soft try was ended from outside and reached no verdict"); err != nil {
			return err
		}
		return a.forgetTry(t)
	case reboot.Unarmed:
		a.Log.Info("soft try has not happened, the release is armed again", "version", t.Version, "verdict", t.Verdict)
		return a.rearm(t)
	case reboot.Over:
		return a.forgetTry(t)
	case reboot.Pending:
		if !starting && a.Now().Sub(t.Time).Abs() < patience { // a clock that was put back does not keep the machine waiting for ever
			return nil
		}
		a.Log.Error("soft reboot has not led into the other slot: the next one is full", "version", t.Version)
		err := a.Store.ChangeReboots(func(m *reboot.Memory) { m.NoSoft = &t.Release })
		return errors.Join(err, a.Userspace.SetTry(false), a.Userspace.Undo(context.Background()), a.rearm(t))
	}
	return nil
}

var errNoTry = errors.New("the note of the soft try is gone")

// verdict writes down what became of the soft try that runs.
func (a *Agent) verdict(running state.Release, v reboot.Verdict) error {
	known := false
	err := a.Store.ChangeReboots(func(m *reboot.Memory) {
		if m.Try != nil && m.Try.Root == running.Root {
			m.Try.Verdict, known = v, true
		}
	})
	if err == nil && !known {
		err = errNoTry
	}
	return err
}

// goodSoftly keeps a release after its soft try: the verdict first, then its boot program is armed. A cut between the two leaves a
// release that is known to be good and not armed, and the next start arms it. The next start of the kernel proves the rest, as after any
// update: kernel, initramfs and loader have not been tried.
func (a *Agent) goodSoftly(running state.Release, m *state.Machine) error {
	if err := a.verdict(running, reboot.Good); err != nil {
		return fmt.Errorf("make release %s good: %w", running.Version, err)
	}
	if err := a.show(&reboot.Try{Release: running}); err != nil {
		return fmt.Errorf("arm release %s: %w", running.Version, err)
	}
	a.Log.Info("release good", "version", running.Version, "root_hash", running.Root, "mode", reboot.Soft)
	m.Target, m.FailedUnits, m.Network = nil, nil, nil
	a.remember(a.endRollback(running), a.move(m, state.Good), a.Userspace.SetTry(false), a.Store.AddHistory(state.Entry{
		Time: a.Now().UTC(), Event: state.EventGood, Release: running, Running: running.Version, Detail: "after a soft reboot; the next full one tries its boot program",
	}))
	return nil
}

// prove reboots in full into the release that runs since a soft reboot: the other slot is the only one whose boot program has
// proven itself, so nothing may be written there before.
func (a *Agent) prove(ctx context.Context, running state.Release, o *offer, doReboot bool, m *state.Machine) (*state.Result, error) {
	name := o.name()
	r := &state.Result{Running: running, Offered: &name}
	why := fmt.Sprintf("release %s runs since a soft reboot and its boot program has to prove itself before %s can be installed", running.Version, name.Version)
	if !doReboot {
		return nil, fmt.Errorf("%s: reboot first", why)
	}
	m.Phase = state.Idle
	a.remember(a.Store.SetMachine(*m))
	d, err := a.goNow(ctx, reboot.Full, running, running, name.Version, m)
	if err != nil {
		return nil, fmt.Errorf("%s, but the reboot could not be started: %w", why, err)
	}
	if !d.Go {
		r.Text = why + ": " + d.Reason
		if !d.When.IsZero() {
			r.AskAgain = &d.When
		}
		return r, nil
	}
	r.Text, r.Mode, r.ModeReason = why+": rebooting", string(reboot.Full), mustProve
	return r, nil
}
