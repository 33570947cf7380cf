// Package agent updates one machine: it puts the steps in order that the other packages know.
//
// Check asks the repository what the channel should run. Apply verifies, streams a payload into the passive slot, arms it and
// reboots; the payload is a delta from what runs if there is one, and the full one if that fails or all servers
// refuse it; a server that sends wrong bytes is named, and the next one asked for the same. Settle finds out at a start, from what is on the disk, what this boot is; Judge makes a try good, or bad and
// goes back. The order of what is written where is that of design.md section 6, and every decision that can be one is in package state.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-semver/semver"

	"github.com/proa-os/proa/internal/release"
	"github.com/proa-os/proa/update-engine/client"
	"github.com/proa-os/proa/update-engine/config"
	"github.com/proa-os/proa/update-engine/install"
	"github.com/proa-os/proa/update-engine/plan"
	"github.com/proa-os/proa/update-engine/reboot"
	"github.com/proa-os/proa/update-engine/record"
	"github.com/proa-os/proa/update-engine/state"
	"github.com/proa-os/proa/update-engine/tuf"
)

// A Machine is what the agent updates: the real one is in package host.
type Machine interface {
	// Running says which root image runs: its version and its root hash.
	Running() (state.Release, error)
	// Boot opens the boot programs on the ESP.
	Boot() (BootFolder, error)
	// BIOS reports whether GRUB starts the machine, and not UEFI.
	BIOS() bool
	// Passive opens the slot that does not run.
	Passive() (install.File, error)
	// Source opens the running root image, every byte of which is authenticated by dm-verity.
	Source() (RootImage, error)
	// FailedUnits lists the units that are failed now.
	FailedUnits(context.Context) ([]string, error)
	// Reboot asks for an orderly reboot and returns. If nobody takes the order and force is set, it resets the machine.
	Reboot(ctx context.Context, force bool) error
}

// A BootFolder is an install.Folder that knows its room and must be closed.
type BootFolder interface {
	install.Folder
	Free() (int64, error) // bytes
	Close() error
}

// A RootImage is the running root image without its verity tree.
type RootImage interface {
	io.ReaderAt
	Size() int64 // bytes
	Close() error
}

// An Agent updates one machine, one job at a time.
type Agent struct {
	Machine Machine
	// Userspace may be nil.
	Userspace Userspace
	Store     *record.Store
	// Config and Broken are changed by Configure while others may ask.
	Config *config.Config
	// Broken is what is wrong with what people have configured last; nil if Config is that.
	Broken   error
	Anchor   []byte // root.json
	TUFState string // folder
	Client   *client.Client
	Now      func() time.Time
	Log      *slog.Logger
	Clock    Clock
	// Identity is the machine's id, for its place in waves; nil: among the last.
	Identity []byte
	// Epoch is when the running release was built: no clock is right before it. The zero time is unknown.
	Epoch time.Time
	// StateRoom is how many bytes the state has room for; nil asks Store.
	StateRoom func() (int64, error)
	// Refresh reads what people configure again, and calls Configure with it: at the start of each job, which fails with its error, and before a
	// question while no job works. It may be nil.
	Refresh func() error
	// Reboots reads again how the machine may reboot, for the last look before it does. It may be nil.
	Reboots func() (reboot.Config, error)
	// Network looks at what works of the network; nil: nothing is remembered of it.
	Network func(context.Context) (state.Network, error)
	// Progress is told how a job goes; total is 0 when unknown.
	Progress func(stage string, done, total int64)

	configured sync.RWMutex // held for moments: of Config and Broken

	mu        sync.Mutex              // held for moments: by Status, while it reads the configuration and the ESP
	working   bool                    // one job at a time
	ended     chan struct{}           // closed when that job ends
	giveWay   context.CancelCauseFunc // of that job, while it asks the repository or fills the passive slot; else nil
	unsettled bool                    // what this boot is could not be written down
	meter     meter
	fetched   atomic.Int64 // bytes, not yet in the counters
}

const maxSmallTarget = 4 << 20 // release.json, with its package list

// move sets the phase, durably.
func (a *Agent) move(m *state.Machine, next state.Phase) error {
	p, err := m.Phase.To(next)
	if err != nil {
		return err
	}
	m.Phase, m.Since = p, a.Now().UTC()
	if p != state.Failed {
		m.Error = ""
	}
	return a.Store.SetMachine(*m)
}

// fail notes why a job ended.
func (a *Agent) fail(m *state.Machine, err error) error {
	m.Phase, m.Since, m.Error = state.Failed, a.Now().UTC(), oneLine(err.Error())
	if saveErr := a.Store.SetMachine(*m); saveErr != nil {
		a.Log.Error("cannot keep the update state", "error", saveErr)
	}
	return err
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// bootNow reads the ESP for Status, and corrects what m says by it. A job has it mounted already, and then the phase says enough.
func (a *Agent) bootNow(running state.Release, q state.Quarantine, m *state.Machine) (state.Boot, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.working {
		return state.Boot{}, nil
	}
	boot, err := a.judge(running, q)
	if err == nil && (a.unsettled || m.Phase == state.Checking || m.Phase == state.Downloading || m.Phase == state.Writing) {
		settle(m, running, boot) // its end could not be written down
	}
	return boot, err
}

// Status reports what the machine runs and why. It does not wait for a job.
func (a *Agent) Status() (*state.Report, error) {
	a.refreshIdle()
	running, err := a.Machine.Running()
	if err != nil {
		return nil, err
	}
	m, err := a.Store.Machine()
	if err != nil {
		return nil, err
	}
	q, err := a.Store.Quarantine()
	if err != nil {
		return nil, err
	}
	orders, err := a.Store.Orders()
	if err != nil {
		return nil, err
	}
	boot, err := a.bootNow(running, q, &m)
	if err != nil {
		return nil, err
	}
	return &state.Report{
		Running: running, State: m, Boot: boot, Quarantine: q, Orders: orders, Channel: a.config().Channel, Server: a.config().Server,
		Progress: a.meter.read(time.Now()), Why: a.why(running, boot, m, q), Gaps: a.gaps(),
	}, nil
}

// History is what became of releases, oldest first.
func (a *Agent) History() ([]state.Entry, error) { return a.Store.History() }

// judge reads the ESP.
func (a *Agent) judge(running state.Release, q state.Quarantine) (state.Boot, error) {
	folder, err := a.Machine.Boot()
	if err != nil {
		return state.Boot{}, err
	}
	defer folder.Close()
	programs, err := programs(folder)
	if err != nil {
		return state.Boot{}, err
	}
	counts, err := install.Counts(folder)
	if err != nil {
		return state.Boot{}, err
	}
	orders, err := a.Store.Orders()
	boot, softErr := a.afterSoft(running, state.Judge(running.Root, programs, counts, q, orders))
	return boot, errors.Join(err, softErr)
}

// why explains the machine in one line.
func (a *Agent) why(running state.Release, boot state.Boot, m state.Machine, q state.Quarantine) string {
	orders, err := a.Store.Orders()
	if err != nil {
		return fmt.Sprintf("stays on %s: %s", running.Version, oneLine(err.Error()))
	}
	f := state.Facts{Running: running.Version, Server: a.config().Server, Boot: boot, Machine: m, Quarantine: q, Orders: orders, Now: a.Now(), Waits: a.waits(m)}
	if err := a.broken(); err != nil {
		f.Broken = oneLine(err.Error())
	}
	if err := a.ready(); err != nil {
		f.Unready = oneLine(err.Error())
	}
	return state.Why(f)
}

func programs(f install.Folder) ([]state.Program, error) {
	found, err := install.Programs(f)
	if err != nil {
		return nil, err
	}
	var list []state.Program
	for _, p := range found {
		list = append(list, state.Program{File: p.File, Root: p.Root})
	}
	return list, nil
}

// An offer is a verified release that this machine may take.
type offer struct {
	release *release.Release
	ways    []way // to get it, the one to try first in front
}

func (o *offer) name() state.Release {
	return state.Release{Version: o.release.Version, Root: o.release.Root.RootHash}
}

// Check asks the repository what the channel should run, and writes nothing but what it has learnt.
func (a *Agent) Check(ctx context.Context) (*state.Result, error) {
	return a.asking(func(running state.Release, m *state.Machine) (*state.Result, error) { return a.check(ctx, running, m) })
}

// check is Check without its frame.
func (a *Agent) check(ctx context.Context, running state.Release, m *state.Machine) (*state.Result, error) {
	before := m.Phase
	o, err := a.look(ctx, running, m)
	if err != nil {
		return nil, err
	}
	m.Phase = before // looking changes nothing
	if err := a.Store.SetMachine(*m); err != nil {
		return nil, err
	}
	q, err := a.Store.Quarantine()
	if err != nil {
		return nil, err
	}
	boot, err := a.judge(running, q)
	if err != nil {
		return nil, err
	}
	r := &state.Result{Running: running, Text: a.why(running, boot, *m, q)}
	if o != nil {
		name := o.name()
		r.Offered, r.Size, r.Payload, r.Full = &name, o.ways[0].Size, o.ways[0].String(), o.ways[len(o.ways)-1].Size
		r.Armed = m.Phase == state.Armed && m.Target != nil && *m.Target == name
		a.foretell(running, boot, o, r)
	}
	return r, nil
}

// look asks the repository: it returns nil if there is nothing to install, and says why in m.
func (a *Agent) look(ctx context.Context, running state.Release, m *state.Machine) (*offer, error) {
	c := &state.Check{Time: a.Now().UTC(), Channel: a.config().Channel}
	a.count(func(c *state.Counters) { c.Checks++ })
	var o *offer
	err := a.yielding(ctx, func(ctx context.Context) (err error) {
		o, err = a.ask(ctx, running, c)
		return err
	})
	if errors.As(err, new(GaveWay)) {
		return nil, err // nobody was asked to the end
	}
	note(m, c, o, err)
	if err != nil {
		a.countFailure(err, state.ReasonNetwork)
		a.Log.Warn("check failed", "server", a.config().Server, "channel", a.config().Channel, "error", err)
		if saveErr := a.Store.SetMachine(*m); saveErr != nil {
			a.Log.Error("cannot keep the update state", "error", saveErr)
		}
		return nil, err
	}
	if o != nil {
		a.Log.Info("release offered", "version", o.release.Version, "root_hash", o.release.Root.RootHash, "running", running.Version, "download_size", o.ways[0].Size)
	}
	a.count(func(sums *state.Counters) { sums.LastSuccess = c.Time })
	return o, a.Store.SetMachine(*m)
}

// note keeps in m what a look has brought.
func note(m *state.Machine, c *state.Check, o *offer, err error) {
	m.Check = c
	if err != nil {
		silence(c, err)
		return
	}
	m.Answer = c
	if o != nil {
		name := o.name()
		c.Release = &name
	}
}

// silence notes why a look has brought no answer.
func silence(c *state.Check, err error) {
	var refusal *tuf.Refusal
	expired := errors.As(err, &refusal) && refusal.Reason == tuf.Expired // a stick that has stayed in is no worse than one that was taken out
	c.Error = oneLine(err.Error())
	c.Unanswered = c.Offered == "" && (expired || reason(err, state.ReasonNetwork) == state.ReasonNetwork)
}

// ask talks to the repository; everything it returns is signed.
func (a *Agent) ask(ctx context.Context, running state.Release, c *state.Check) (*offer, error) {
	if a.config().Server == "" {
		return nil, fmt.Errorf(`no repository is %w: write {"server": "https://..."} to /etc/proa/update/config.json`, errConfiguration)
	}
	if a.Anchor == nil {
		return nil, fmt.Errorf("no trust anchor is %w: put the repository's root.json at /etc/proa/update/root.json", errConfiguration)
	}
	a.progress("check", 0, 0)
	t, err := tuf.Open(ctx, tuf.Config{Fetcher: a.Client, Server: a.config().Server, Anchor: a.Anchor, State: a.TUFState, Now: a.Now()})
	if err != nil {
		return nil, err
	}
	defer t.Close()
	if err := t.Refresh(); err != nil {
		return nil, err
	}
	b, err := t.Read(plan.Target(a.config().Channel), maxSmallTarget)
	if err != nil {
		return nil, err
	}
	p, err := plan.Parse(b, a.config().Channel)
	if err != nil {
		return nil, err
	}
	orders, err := a.Store.Orders()
	if err != nil {
		return nil, err
	}
	c.Offered, c.Held, c.Urgent = p.Release, p.Held(a.Now(), plan.PlaceOf(a.Identity, p.Release)), p.Urgent
	want := orders.Want(p.Release) // a pinned release is signed by the offline keys as any, whatever the plan says
	if newer, err := newer(want, running.Version); err != nil || !newer {
		return nil, err
	}
	if c.Held != "" && want == p.Release || orders.Forbid(want, a.Now()) != "" {
		return nil, nil
	}
	return a.read(t, want, running)
}

// newer is state.Newer, and an error for what is no version.
func newer(offered, running string) (bool, error) {
	if _, err := semver.NewVersion(offered); err != nil {
		return false, fmt.Errorf("offered version %q: %w", offered, err)
	}
	if _, err := semver.NewVersion(running); err != nil {
		return false, fmt.Errorf("running version %q: %w", running, err)
	}
	return state.Newer(offered, running), nil
}

// read gets a release and says whether this machine may take it.
func (a *Agent) read(t *tuf.Client, version string, running state.Release) (*offer, error) {
	base := "releases/" + version + "/" + runtime.GOARCH + "/"
	b, err := t.Read(base+"release.json", maxSmallTarget)
	if err != nil {
		return nil, fmt.Errorf("the plan of channel %s, or a pin, names release %s: %w", a.config().Channel, version, err)
	}
	r, err := release.Read(b)
	if err != nil {
		return nil, err
	}
	switch {
	case r.Version != version || r.Arch != runtime.GOARCH:
		return nil, fmt.Errorf("%srelease.json is about release %s for %s: its signers have to stage and sign it anew", base, r.Version, r.Arch)
	case r.Payloads == nil || r.Payloads.Full.Name != base+"full.payload":
		return nil, fmt.Errorf("%srelease.json names no payload of its own: its signers have to stage and sign it anew", base)
	case r.Root.RootHash == running.Root:
		return nil, fmt.Errorf("release %s has the root hash of the running %s: it is the same image under another version, and its signers have to withdraw it", r.Version, running.Version)
	}
	if r.MinSource != "" && r.MinSource != running.Version {
		if enough, err := newer(running.Version, r.MinSource); err != nil || !enough {
			return nil, fmt.Errorf("release %s can be reached from %s on, this machine runs %s: update to a release in between first", r.Version, r.MinSource, running.Version)
		}
	}
	q, err := a.Store.Quarantine()
	if err != nil || q.Find(r.Root.RootHash) != nil {
		return nil, err
	}
	ways, err := a.ways(t, r, running)
	if err != nil {
		return nil, err
	}
	return &offer{release: r, ways: ways}, nil
}
