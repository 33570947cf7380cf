// Package stage is the driver of provisioning: it puts source, config, plan and apply in order, as upstream's stages do.
//
// The way of a first boot: fetch-offline reads the platform's config and everything it refers to, checks it, and caches the result; if
// that needs the network it says so instead, network brings it up, and fetch does the rest; kargs sees to the kernel arguments, for which
// the machine may start again; disks makes partitions, arrays, encrypted
// volumes and file systems; mount mounts them; files writes users, files and units; umount takes the mounts away and closes what was
// opened, for systemd to do its way; finish writes the result and the marker that makes this the last time. Each can be run again
// after a power cut. What goes wrong is also written to Options.Failure, for the screen that ShowFailure puts on every console.
//
// The cache holds secrets; it lives in /run, readable by root only, and finish removes it.
package stage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/proa-os/proa/ignition/apply"
	"github.com/proa-os/proa/ignition/config"
	"github.com/proa-os/proa/ignition/device"
	"github.com/proa-os/proa/ignition/loader"
	"github.com/proa-os/proa/ignition/plan"
	"github.com/proa-os/proa/ignition/platform"
	"github.com/proa-os/proa/ignition/source"
)

// Options are the flags of the command, which have upstream's names.
type Options struct {
	Platform    string // "" means the kernel command line's
	Stage       string
	Root        string
	ConfigCache string
	StateFile   string
	NeedNet     string
	Failure     string // what went wrong, for ShowFailure
	Restart     string // flag file: the machine is provisioned, and has to start again
	Reread      string // flag file: systemd has gone on without reading everything anew
	Log         *slog.Logger
	Fetcher     source.Fetcher // of Apply
	Owners      apply.Owners   // nil: the real ones
	PlainKeys   bool           // ssh keys go into ~/.ssh/authorized_keys
	// Fault is asked before every step on files that lasts, and stops the stage with the error it returns; nil never does.
	Fault func(step string) error
	home  func(ctx context.Context, where string) (*home, error) // nil: homeOn
}

// state is what later stages need besides the config.
type state struct {
	config.Merged
	Platform     string `json:"platform"`
	UserConfig   bool   `json:"userConfigProvided"`
	ConfigSHA256 string `json:"configSHA256,omitempty"` // of the platform's config
}

// ErrState is that what an earlier stage has left cannot be read.
var ErrState = errors.New("damaged by something else than a stage; run the fetch stage again")

// Stages are the names Run takes.
func Stages() []string {
	return []string{"fetch-offline", "network", "fetch", "kargs", "disks", "mount", "files", "umount"}
}

// Run runs one stage, or several with commas between them. m is the machine that platforms read from.
func Run(ctx context.Context, m *platform.Machine, o Options) error {
	err := run(ctx, m, o)
	if errors.Is(err, errRestarting) {
		return nil
	}
	if err != nil {
		if werr := writeFailure(o.Failure, err); werr != nil {
			o.Log.Warn("cannot keep the error for the consoles", "error", werr)
		}
	}
	return err
}

func run(ctx context.Context, m *platform.Machine, o Options) error {
	if first, rest, several := strings.Cut(o.Stage, ","); several {
		o.Stage = first
		if err := run(ctx, m, o); err != nil {
			return err
		}
		o.Stage = rest
		return run(ctx, m, o)
	}
	err := one(ctx, m, o)
	if !errors.Is(err, errRestarting) {
		report(ctx, m, o, err)
	}
	return err
}

// one runs one stage.
func one(ctx context.Context, m *platform.Machine, o Options) error {
	switch o.Stage {
	case "fetch-offline":
		return fetch(ctx, m, o, true)
	case "network":
		return network(ctx, o)
	case "fetch":
		if _, err := os.Stat(o.StateFile); err == nil {
			return nil // fetch-offline has done it
		}
		return fetch(ctx, m, o, false)
	case "kargs":
		return arguments(ctx, o, loader.ThisMachine(), restart)
	case "mount", "umount":
		return devices(ctx, o)
	case "disks", "files":
		o.Fetcher.Retrying = retrying(o)
		if p, err := named(m, o); err == nil { // else the objects are read as anybody may
			o.Fetcher = p.Credentials(m, o.Fetcher)
		}
		if o.Stage == "disks" {
			return devices(ctx, o)
		}
		return files(ctx, o)
	}
	return fmt.Errorf("run stage %q: expected one of %s", o.Stage, strings.Join(Stages(), ", "))
}

// fetch fills the cache. Offline, a config that needs the network leaves a flag file instead, as upstream does.
func fetch(ctx context.Context, m *platform.Machine, o Options, offline bool) error {
	p, err := named(m, o)
	if err != nil {
		return err
	}
	stale := []string{o.ConfigCache, o.StateFile}
	if offline { // afterwards the flag says that the network is up for provisioning
		stale = append(stale, o.NeedNet)
	}
	for _, stale := range stale {
		if err := os.Remove(stale); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	fetcher := p.Credentials(m, source.Fetcher{Offline: offline, Secrets: o.Fetcher.Secrets, Retrying: retrying(o)})
	st := state{Merged: *config.Empty(), Platform: p.ID}
	a, err := acquire(ctx, m, p, o, fetcher)
	if offline && errors.Is(err, source.ErrNeedNetwork) {
		o.Log.Info("platform needs the network", "platform", p.ID)
		return writeRuntimeFile(o.NeedNet, nil, 0o644)
	}
	if err != nil {
		return err
	}
	var merged *config.Merged
	if len(a.Config) > 0 {
		merged, err = config.Load(ctx, a.Name, a.Config, fetcher.Config)
		if offline && needNet(merged, err) {
			o.Log.Info("config needs the network", "config", a.Name)
			return writeRuntimeFile(o.NeedNet, nil, 0o644)
		}
		if err != nil {
			return err
		}
		st.UserConfig, st.ConfigSHA256 = true, merged.Origins[0].SHA256
		o.Log.Info("fetched config", "platform", p.ID, "config", a.Name, "sha256", st.ConfigSHA256)
	} else {
		o.Log.Info("no config for this machine, provisioning it as it is", "platform", p.ID)
	}
	switch {
	case merged == nil && a.base == nil:
		return store(o, st)
	case merged == nil:
		merged = a.base
	case a.base != nil:
		if merged, err = config.Beneath(a.base, merged); err != nil {
			return err
		}
	}
	for _, w := range merged.Warnings {
		o.Log.Warn("config warning", "warning", w.Error())
	}
	if _, err := plan.Build(merged); err != nil {
		return err
	}
	st.Merged = *merged
	return store(o, st)
}

// networkUnit brings the machine's network up before the config that may describe it is there.
const networkUnit = "provision-network.service"

// network starts the network if fetch-offline has asked for it. What cannot be fetched without it says so better than its own failure would.
func network(ctx context.Context, o Options) error {
	if _, err := os.Stat(o.NeedNet); err != nil {
		return nil
	}
	o.Log.Info("waiting for the network")
	if err := Systemctl(ctx, "start", networkUnit); err != nil {
		o.Log.Warn("the network did not start", "unit", networkUnit, "error", err)
	}
	return nil
}

// retrying logs that a source did not answer, once for each way in which it did not.
func retrying(o Options) func(string, error) {
	var last string
	return func(name string, err error) {
		if text := err.Error(); text != last {
			last = text
			o.Log.Warn("no answer, trying again", "source", name, "error", err)
		}
	}
}

func needNet(m *config.Merged, err error) bool {
	if m != nil {
		_, _, needs := m.NeedsNetwork()
		return needs
	}
	return errors.Is(err, source.ErrNeedNetwork)
}

func named(m *platform.Machine, o Options) (p platform.Platform, err error) {
	id := o.Platform
	if id == "" {
		if id, err = platform.Argument(m.CommandLine); err != nil {
			return p, err
		}
	}
	return platform.Lookup(id)
}

// files applies the cached config.
func files(ctx context.Context, o Options) error {
	st, err := load(o)
	if err != nil {
		return err
	}
	ops, err := plan.Build(&st.Merged)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(o.Root)
	if err != nil {
		return fmt.Errorf("open root: %w", err)
	}
	defer root.Close()
	all := ops
	_, _, ops = plan.Split(ops)
	if ops, err = applyFiles(ctx, root, &st.Merged, ops, o); err != nil {
		return err
	}
	if err := o.step("remember what was made"); err != nil {
		return err
	}
	if err := apply.Record(root, append(made(all), ops...), o.Owners, device.Observer{Sys: "/sys", Dev: "/dev", Proc: "/proc"}.Look); err != nil {
		return err
	}
	if filepath.Clean(o.Root) == "/" {
		return setHostname(root, o.Log)
	}
	return nil
}

// made are the operations of a plan on what is not in the tree.
func made(ops []plan.Op) (all []plan.Op) {
	devices, _, _ := plan.Split(ops)
	if a := plan.ArgumentsOf(ops); a.String() != "" {
		all = append(all, a)
	}
	return append(all, devices...)
}

// deviceTimeout is how long a device of the config may take to appear: as long as systemd gives it.
const deviceTimeout = 90 * time.Second

// devices makes what the config says of disks, and mounts it for the files stage.
func devices(ctx context.Context, o Options) error {
	st, err := load(o)
	if err != nil {
		return err
	}
	ops, err := plan.Build(&st.Merged)
	if err != nil {
		return err
	}
	made, mounts, _ := plan.Split(ops)
	m := device.System{Root: o.Root, Timeout: deviceTimeout}
	switch o.Stage {
	case "mount":
		return device.Mount(ctx, m, o.Root, mounts)
	case "umount":
		if err := device.Unmount(m, mounts); err != nil || filepath.Clean(o.Root) != "/" {
			return err // whoever has another root goes on with what is open
		}
		device.Release(ctx, m, made, func(op plan.Op, err error) {
			o.Log.Warn("stays open", "operation", op.String(), "error", err)
		})
		return nil
	}
	if len(made) == 0 { // then no certificate needs to be fetched either
		return nil
	}
	root, err := os.OpenRoot(o.Root)
	if err != nil {
		return fmt.Errorf("open root: %w", err)
	}
	defer root.Close()
	fetcher, err := fetcherFor(ctx, o.Fetcher, &st.Merged)
	if err != nil {
		return err
	}
	bind, unlock := locks(o)
	return device.Run(ctx, m, made, device.Options{
		Root: root, Fetch: fetcher.Fetch, Bind: bind, Unlock: unlock,
		Done: func(op plan.Op, outcome string) { o.Log.Info("done", "operation", op.String(), "outcome", outcome) },
	})
}

// fetcherFor is f.For, whose error says where m names what is wrong.
func fetcherFor(ctx context.Context, f source.Fetcher, m *config.Merged) (*source.Fetcher, error) {
	fetcher, err := f.For(ctx, m.Config)
	var a *source.AuthorityError
	if errors.As(err, &a) {
		at := m.Place(fmt.Sprintf("ignition.security.tls.certificateAuthorities[%d].source", a.Index))
		err = config.Issues{config.Of(at, "", err, apply.NextStep(err))}
	}
	return fetcher, err
}

// Apply carries ops, the plan of m, out on root. What the plan says of devices is left out, with a warning.
func Apply(ctx context.Context, root *os.Root, m *config.Merged, ops []plan.Op, o Options) error {
	ops, err := applyFiles(ctx, root, m, ops, o)
	if err != nil {
		return err
	}
	return apply.Record(root, ops, o.Owners, nil)
}

// applyFiles does that, and returns what it did.
func applyFiles(ctx context.Context, root *os.Root, m *config.Merged, ops []plan.Op, o Options) ([]plan.Op, error) {
	fetcher, err := fetcherFor(ctx, o.Fetcher, m)
	if err != nil {
		return nil, err
	}
	if op := plan.ArgumentsOf(ops); op.String() != "" {
		o.Log.Warn("left out, a tree has no boot program", "operation", op.String())
	}
	ops, err = plan.Reveal(ops, func(sealed []byte) ([]byte, error) {
		if o.Fetcher.Secrets == nil {
			return nil, errors.New("open a secret: expected the key of a machine, found none here")
		}
		return o.Fetcher.Secrets(ctx, sealed)
	})
	if err != nil {
		return nil, err
	}
	devices, mounts, ops := plan.Split(ops)
	for _, op := range append(devices, mounts...) {
		o.Log.Warn("left out, a tree has no devices", "operation", op.String())
	}
	err = apply.Run(ctx, root, ops, apply.Options{
		Fetch:     fetcher.Fetch,
		Owners:    o.Owners,
		PlainKeys: o.PlainKeys,
		Fault:     o.Fault,
		Done:      func(op plan.Op) { o.Log.Info("done", "operation", op.String()) },
	})
	if err != nil {
		return nil, err
	}
	o.Log.Info("applied config", "operations", len(ops))
	return ops, nil
}

func store(o Options, st state) error {
	cfg, err := json.Marshal(st.Config)
	if err != nil {
		return err
	}
	rest, err := json.Marshal(st)
	if err != nil {
		return err
	}
	if err := writeRuntimeFile(o.ConfigCache, cfg, 0o600); err != nil {
		return err
	}
	return writeRuntimeFile(o.StateFile, rest, 0o600)
}

func load(o Options) (*state, error) {
	var st state
	b, err := os.ReadFile(o.StateFile)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(o.NeedNet); err == nil {
			return nil, apply.NewProblem("the config was not fetched yet", "a run of stage fetch", "one of fetch-offline, which has found that it needs the network",
				"run stage fetch when the network is up")
		}
		return nil, fmt.Errorf("read cached config: %w; run the fetch stage first", err)
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &st); err != nil {
		return nil, fmt.Errorf("read %s: %w: %w", o.StateFile, ErrState, err)
	}
	if b, err = os.ReadFile(o.ConfigCache); err != nil {
		return nil, fmt.Errorf("read cached config: %w", err)
	}
	if err := json.Unmarshal(b, &st.Config); err != nil {
		return nil, fmt.Errorf("read %s: %w: %w", o.ConfigCache, ErrState, err)
	}
	return &st, nil
}

// writeRuntimeFile writes a file whole; /run forgets it at the next boot, so it is not synced.
func writeRuntimeFile(name string, b []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	tmp := name + ".tmp"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(tmp, b, mode); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}
