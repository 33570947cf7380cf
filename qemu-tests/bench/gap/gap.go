// Package gap measures how long a machine is away in an update, in each mode of reboot: from the order to a boot that its health check
// calls healthy, as the machine itself measures it.
//
// One machine takes two updates to releases that differ in their version only: the first softly, since the kernel stays the same, the
// second in full, since its configuration says so.
package gap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/proa-os/proa/qemu-tests/provision"
	"github.com/proa-os/proa/qemu-tests/vm"
	"github.com/proa-os/proa/qemu-tests/world"
)

// Options of Run.
type Options struct {
	Out      string // folder of what is built and of the machine's console
	Messages io.Writer
}

// A Report is what was measured, in seconds by mode, and on what.
type Report struct {
	Seconds     map[string]float64 `json:"seconds"`
	Accelerator string             `json:"accelerator"`
}

// WriteText writes it for people.
func (r *Report) WriteText(w io.Writer) error {
	_, err := fmt.Fprintf(w, "Gap of an update, from the order to reboot to a healthy boot (%s, 2 CPUs):\n  soft reboot %6.1f s\n  full reboot %6.1f s\n",
		r.Accelerator, r.Seconds["soft"], r.Seconds["full"])
	return err
}

// bench is what the steps share.
type bench struct {
	Options
	ctx      context.Context
	programs *world.Programs
	desk     *world.Desk
	web      *world.Web
	machine  *vm.Machine
}

// Run builds three releases and measures.
func Run(ctx context.Context, o Options) (r *Report, err error) {
	b := &bench{Options: o, ctx: ctx}
	if b.Out, err = filepath.Abs(o.Out); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil && b.machine != nil {
			err = fmt.Errorf("%w\n%s", err, b.machine.Explain())
		}
		err = errors.Join(err, b.close())
	}()
	if err := b.open(); err != nil {
		return nil, err
	}
	if err := b.update("9.0.1", "soft"); err != nil {
		return nil, err
	}
	fmt.Fprintln(b.Messages, "restarting, for the boot program to prove itself")
	if err := b.machine.Reboot(ctx); err != nil {
		return nil, err
	}
	if err := b.settled("9.0.1"); err != nil {
		return nil, err
	}
	if err := b.machine.CopyTo(ctx, "root", configFile, 0o644, b.config("full")); err != nil {
		return nil, err
	}
	if err := b.update("9.0.2", "full"); err != nil {
		return nil, err
	}
	s, err := b.status()
	if err != nil {
		return nil, err
	}
	r = &Report{Seconds: s.Gaps, Accelerator: string(b.machine.Accelerator().Use)}
	if r.Seconds["soft"] <= 0 || r.Seconds["full"] <= 0 {
		return nil, fmt.Errorf("the machine has measured %v, want a gap of each mode", r.Seconds)
	}
	return r, nil
}

const configFile = "/etc/proa/update/config.json"

func (b *bench) config(mode string) []byte {
	return fmt.Appendf(nil, `{"server":%q,"auto":false,"reboot":{"mode":%q}}`+"\n", b.web.GuestURL(), mode)
}

// open starts the desk and the machine.
func (b *bench) open() error {
	repo, err := world.FindRepository()
	if err != nil {
		return err
	}
	dir := filepath.Join(b.Out, "gap")
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("empty %s: %w", dir, err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o755); err != nil {
		return err
	}
	b.programs = world.NewPrograms(repo, filepath.Join(dir, "bin"))
	first, err := b.image("9.0.0")
	if err != nil {
		return err
	}
	if b.desk, err = world.NewDesk(b.ctx, b.programs, dir); err != nil {
		return err
	}
	root, err := b.desk.Root()
	if err != nil {
		return err
	}
	if b.web, err = world.Serve(b.desk.Repository); err != nil {
		return err
	}
	key, err := vm.NewKey()
	if err != nil {
		return err
	}
	ignition, err := provision.New().SSHKey("core", key.AuthorizedKey()).SSHKey("root", key.AuthorizedKey()).
		File("/etc/proa/update/root.json", 0o644, string(root)).File(configFile, 0o644, string(b.config("auto"))).JSON()
	if err != nil {
		return err
	}
	fmt.Fprintln(b.Messages, "booting 9.0.0")
	b.machine, err = vm.Start(b.ctx, vm.Config{Name: "gap", Dir: filepath.Join(dir, "machine"), Disk: first.Disk(), Ignition: ignition, Key: key})
	if err != nil {
		return err
	}
	return b.settled("9.0.0")
}

func (b *bench) close() error {
	var errs []error
	if b.machine != nil {
		errs = append(errs, b.machine.Close(), b.machine.RemoveDisk())
	}
	if b.web != nil {
		errs = append(errs, b.web.Close())
	}
	return errors.Join(errs...)
}

func (b *bench) image(version string) (world.Image, error) {
	return b.programs.Build(b.ctx, b.Messages, filepath.Join(b.Out, version), version, "")
}

// update publishes a release and waits until the machine runs it and is well.
func (b *bench) update(version, mode string) error {
	image, err := b.image(version)
	if err != nil {
		return err
	}
	if err := b.desk.Publish(b.ctx, image, "stable"); err != nil {
		return err
	}
	fmt.Fprintf(b.Messages, "updating to %s, %s\n", version, mode)
	out, applyErr := b.machine.Run(b.ctx, "root", "updatectl apply --json") // the connection may end first
	if err := b.settled(version); err != nil {
		return fmt.Errorf("%w; updatectl apply: %q, %w", err, out, applyErr)
	}
	s, err := b.status()
	if err == nil && s.Gaps[mode] <= 0 {
		err = fmt.Errorf("update to %s: want a gap of mode %s, the machine has measured %v", version, mode, s.Gaps)
	}
	return err
}

// status is what the bench reads of `updatectl status --json`.
type status struct {
	Running struct {
		Version string `json:"version"`
	} `json:"running"`
	Boot struct {
		Trying bool `json:"trying"`
	} `json:"boot"`
	Gaps map[string]float64 `json:"gaps"`
}

func (b *bench) status() (s status, err error) {
	out, err := b.machine.Run(b.ctx, "root", "systemctl is-system-running --wait >&2; updatectl status --json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &s)
	}
	return s, err
}

// settled waits until the machine runs a version that is no try any more.
func (b *bench) settled(version string) error {
	const limit = 10 * time.Minute
	for start := time.Now(); ; {
		s, err := b.status()
		if err == nil && s.Running.Version == version && !s.Boot.Trying {
			return nil
		}
		if time.Since(start) > limit {
			return fmt.Errorf("the machine does not become %s in %s: %+v: %w", version, limit, s, err)
		}
		select {
		case <-b.ctx.Done():
			return b.ctx.Err()
		case <-time.After(time.Second):
		}
	}
}
