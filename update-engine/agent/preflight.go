package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"github.com/proa-os/proa/internal/release"
	"github.com/proa-os/proa/update-engine/install"
	"github.com/proa-os/proa/update-engine/record"
	"github.com/proa-os/proa/update-engine/state"
)

// ready refuses, before anything is asked or written, what a machine cannot update with. The machine stays as it is, and the next run
// looks again.
func (a *Agent) ready() error {
	if err := a.clock(); err != nil {
		return err
	}
	return a.stateRoom()
}

// postpone notes why a run did not even begin. State may be what is wrong, so this is tried only.
func (a *Agent) postpone(m *state.Machine, err error) error {
	m.Check = &state.Check{Time: a.Now().UTC(), Channel: a.config().Channel, Error: oneLine(err.Error())}
	a.Log.Warn("update postponed", "error", m.Check.Error)
	a.countFailure(err, state.ReasonClock)
	a.remember(a.Store.SetMachine(*m))
	return err
}

// clockRange is how far from the time of its image a machine's clock is believed; systemd takes the same (CLOCK_VALID_RANGE_USEC_MAX).
const clockRange = 15 * 365 * 24 * time.Hour

// clock refuses a clock by which no signature can be judged: one before the running release was built would take metadata that has expired
// since, and one in another decade refuses everything. Whether metadata is fresh is for package tuf to say.
func (a *Agent) clock() error {
	if a.Epoch.IsZero() {
		return nil
	}
	now := a.Now()
	what := ""
	switch {
	case now.Before(a.Epoch):
		what = "before the running release was built"
	case now.After(a.Epoch.Add(clockRange)):
		what = "more than 15 years after the running release was built"
	default:
		return nil
	}
	return fmt.Errorf("the clock is wrong: it says %s, which is %s (%s): expiry dates of metadata and certificates cannot be judged by it; set it (timedatectl set-ntp true, or timedatectl set-time), the next check goes on",
		now.UTC().Format(time.RFC3339), what, a.Epoch.UTC().Format(time.RFC3339))
}

// stateNeed is the room in bytes for what an update keeps: the trusted metadata, each file twice while it is replaced, and its own state.
const stateNeed = 4 << 20

// stateRoom refuses when the state cannot keep what an update learns: a rollback that is not remembered could be repeated, a release that
// proves bad would be taken again.
func (a *Agent) stateRoom() error {
	free, err := a.room()
	switch {
	case errors.Is(err, syscall.EROFS):
		return noRoom{fmt.Errorf("state is read-only (%w): the kernel makes it so after an error of the disk or its file system (journalctl -k says which); a reboot checks and repairs it", err)}
	case errors.Is(err, record.ErrFiles):
		return noRoom{fmt.Errorf("state is full: %w, whatever the bytes; remove some, with containerctl gc for example", err)}
	case err != nil:
		return noRoom{fmt.Errorf("look for room in state: %w", err)}
	case free < stateNeed:
		return noRoom{fmt.Errorf("state is full: it has room for %d bytes, an update keeps up to %d: %d bytes are missing; free some, with containerctl gc or journalctl --vacuum-size=50M for example",
			free, int64(stateNeed), stateNeed-free)}
	}
	return nil
}

func (a *Agent) room() (int64, error) {
	if a.StateRoom != nil {
		return a.StateRoom()
	}
	return a.Store.Free()
}

// espMargin is for folders and the loader's own files.
const espMargin = 1 << 20

// room refuses early when the ESP cannot be written or cannot hold the boot program, once the old one is gone.
func room(f BootFolder, running state.Release, r *release.Release) error {
	free, err := f.Free()
	if errors.Is(err, syscall.EROFS) {
		return noRoom{fmt.Errorf("the ESP is read-only (%w): the kernel makes it so when its file system is damaged (journalctl -k says how), or the disk is write-protected; repair it from another system (fsck.fat)", err)}
	}
	if err != nil {
		return fmt.Errorf("look for room on the ESP: %w", err)
	}
	leaving, err := install.Leaving(f, running.Root)
	if err != nil {
		return err
	}
	for _, name := range leaving {
		size, err := sizeOf(f, name)
		if err != nil {
			return fmt.Errorf("look for room on the ESP: %s: %w", name, err)
		}
		free += size
	}
	if need := r.Boot.Size + espMargin; free < need {
		return noRoom{fmt.Errorf("the ESP is full: it has room for %d bytes, the boot program of release %s needs %d: %d bytes are missing; remove what is not Proa's from it",
			free, r.Version, need, need-free)}
	}
	return nil
}

func sizeOf(f install.Folder, name string) (int64, error) {
	file, err := f.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer file.Close()
	return file.Size()
}
