package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/proa-os/proa/internal/slot"
	"github.com/proa-os/proa/update-engine/install"
	"github.com/proa-os/proa/update-engine/state"
)

// Rollback makes the good release in the other slot what boots next and stays: nothing that is not newer than the release it leaves is
// taken again, until Resume. version, if not empty, must be the one in the other slot.
//
// The loader takes the newest good boot program, so the newer one must stop being good. The order of what is written, each
// harmless if it is the last one that happened:
//
//  1. the other slot is read and compared with its root hash; nothing is written
//  2. orders.json names what is left and what is gone back to: still boots what runs. The next start finds that the rollback did not
//     happen, and forgets it
//  3. the running boot program gets the name of one without tries: the commit point. The other is the only good one from here on
//  4. history.jsonl and state.json, which are for people
//
// A rename on FAT that is cut in the middle leaves both names: the good one counts, as at step 2.
func (a *Agent) Rollback(ctx context.Context, version string, given state.Given, reboot bool) (*state.Result, error) {
	given.Time = a.Now().UTC()
	return a.ordered(given, func(running state.Release) (*state.Result, error) {
		return a.rollback(ctx, running, version, given, reboot)
	})
}

// rollback is Rollback without its frame.
func (a *Agent) rollback(ctx context.Context, running state.Release, version string, given state.Given, reboot bool) (*state.Result, error) {
	to, err := a.goBack(ctx, running, version, given)
	if err != nil {
		return nil, fmt.Errorf("roll back from %s: %w", running.Version, err)
	}
	r := &state.Result{Running: running, Offered: &to, Armed: true, Text: fmt.Sprintf("rolled back from %s: the next boot runs %s", running.Version, to.Version)}
	if !reboot {
		return r, nil
	}
	a.progress("reboot", 0, 0)
	if err := a.Machine.Reboot(ctx, false); err != nil {
		return nil, fmt.Errorf("%s, but the reboot could not be started: %w", r.Text, err)
	}
	r.Text = fmt.Sprintf("rolled back from %s: rebooting into %s", running.Version, to.Version)
	return r, nil
}

// goBack is rollback without its reboot.
func (a *Agent) goBack(ctx context.Context, running state.Release, version string, given state.Given) (to state.Release, err error) {
	q, err := a.Store.Quarantine()
	if err != nil {
		return to, err
	}
	boot, err := a.judge(running, q)
	if err != nil {
		return to, err
	}
	if boot.Soft && boot.Trying {
		return to, errors.New("it is on trial after a soft reboot: wait for its verdict, or reboot the machine (systemctl reboot), which goes back")
	}
	folder, err := a.Machine.Boot()
	if err != nil {
		return to, err
	}
	defer folder.Close()
	list, err := install.Programs(folder)
	if err != nil {
		return to, err
	}
	if to, err = target(boot, list, version); err != nil {
		return to, err
	}
	if boot.Leaving {
		return to, nil // done, and the reboot has not come yet
	}
	a.Log.Info("rolling back", "from", running.Version, "to", to.Version, "by", given.By, "reason", given.Reason)
	if err := a.whole(ctx, folder, boot.WayBack); err != nil {
		return to, err
	}
	orders, err := a.Store.Orders()
	if err != nil {
		return to, err
	}
	orders.Back = &state.Back{Given: given, From: running, To: to}
	if err := a.Store.SetOrders(orders); err != nil {
		return to, err
	}
	name, err := left(boot.File, list)
	if err != nil {
		return to, err
	}
	if err := folder.Rename(boot.File, name); err != nil {
		return to, fmt.Errorf("take the tries from boot program %s: %w", boot.File, err)
	}
	a.Log.Warn("rolled back", "from", running.Version, "to", to.Version, "by", given.By, "reason", given.Reason)
	m, machineErr := a.Store.Machine()
	m.Phase, m.Since, m.Target, m.Error = state.Rebooting, given.Time, &to, ""
	a.remember(machineErr, a.Store.SetMachine(m),
		a.Store.AddHistory(state.Entry{Time: given.Time, Event: state.EventRolledBack, Release: running, Running: running.Version, By: given.By, Detail: "to " + to.Version + because(given.Reason)}))
	return to, nil
}

// left is a name without tries for a boot program, and none that is there: a cut in an earlier rename may have left the same file under
// two names, and on FAT replacing one would free the content of both.
func left(file string, list []install.Program) (string, error) {
	name, err := slot.MarkBad(file)
	for err == nil && slices.ContainsFunc(list, func(p install.Program) bool { return p.File == name }) {
		var n slot.Name
		if n, err = slot.Parse(name); err == nil {
			n.Done++
			name = n.String()
		}
	}
	return name, err
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + oneLine(reason)
}

// whole proves that the other slot holds what a boot program boots.
func (a *Agent) whole(ctx context.Context, folder install.Folder, program string) error {
	other, err := a.Machine.Passive()
	if err != nil {
		return err
	}
	defer other.Close()
	a.progress("read", 0, 0)
	_, err = install.Whole(ctx, other, folder, program)
	return err
}

// target is the good release in the other slot, or says why there is none.
func target(boot state.Boot, list []install.Program, version string) (state.Release, error) {
	var others []string
	for _, p := range list {
		if p.File == boot.WayBack {
			if version != "" && version != p.Name.Version {
				return state.Release{}, fmt.Errorf("the other slot holds %s, not %s: a machine keeps two releases", p.Name.Version, version)
			}
			if boot.File == "" {
				return state.Release{}, errors.New("no boot program on the ESP boots what runs, so none can be left")
			}
			return state.Release{Version: p.Name.Version, Root: p.Root}, nil
		}
		if p.File != boot.File {
			others = append(others, p.File)
		}
	}
	slices.Sort(others)
	switch {
	case len(others) == 0:
		return state.Release{}, errors.New("there is nothing to go back to: the other slot is empty")
	case boot.Next != boot.File:
		return state.Release{}, fmt.Errorf("there is nothing to go back to: the other slot holds %s, which has not been tried yet; updatectl hold keeps it from being tried", boot.Next)
	}
	return state.Release{}, fmt.Errorf("there is nothing to go back to: the other slot holds %s, which is bad or was left by a rollback", others[0])
}

// Resume lets the machine follow its channel again after a rollback.
func (a *Agent) Resume(given state.Given) (*state.Result, error) {
	return a.steer(given, func(running state.Release, o *state.Orders) (state.Entry, string, error) {
		back := o.Back
		if back == nil {
			return state.Entry{}, "nothing was rolled back by hand", nil
		}
		if back.From.Root == running.Root {
			return state.Entry{}, "", fmt.Errorf("the rollback to %s waits for the next boot: reboot first", back.To.Version)
		}
		// Its boot program goes first: without tries and without the order it would look like a release that has failed.
		if err := a.removeOthers(running, func(p install.Program) bool { return p.Root == back.From.Root }); err != nil {
			return state.Entry{}, "", err
		}
		o.Back = nil
		return state.Entry{Event: state.EventResumed, Release: back.From}, fmt.Sprintf("release %s may be taken again", back.From.Version), nil
	})
}

// removeOthers removes boot programs from the ESP, never what boots the running root image.
func (a *Agent) removeOthers(running state.Release, which func(install.Program) bool) error {
	folder, err := a.Machine.Boot()
	if err != nil {
		return err
	}
	defer folder.Close()
	list, err := install.Programs(folder)
	if err != nil {
		return err
	}
	var names []string
	for _, p := range list {
		if p.Root != running.Root && which(p) {
			names = append(names, p.File)
		}
	}
	if err := install.Discard(folder, names); err != nil {
		return fmt.Errorf("remove boot programs %q: %w", names, err)
	}
	return nil
}
