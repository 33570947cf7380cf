// Package bench measures how long a Proa machine takes to boot, and plain Debian beside it: what `make bench-boot` prints.
//
//	world.Image ─▶ machine "proa"   ┐ power on ▶ console lines, CPU time of QEMU ▶ ssh: what systemd and the kernel noted ▶ power off
//	bench/debian ─▶ machine "debian"┘ in turn, Rounds times ─▶ Report: phases, ratios, slowest units ─▶ table or JSON
//
// Both machines have the same virtual hardware, the same kernel console and run in the same minutes, one at a time and in turn, so
// that what else the host does falls on both. The first boot of each, which makes state and keys, is reported apart; what is
// compared are later boots. What provisioning adds to a first boot without config is measured on machines of their own (firstboot.go).
//
// The phases:
//
//	firmware    power on to the loader          host's clock; the firmware's console line "BdsDxe: starting"
//	loader      to the kernel's start           host's clock; includes that the kernel unpacks itself
//	kernel      to /init                        guest's clock; the kernel's line "Run /init as init process"
//	initramfs   to systemd                      guest's clock; UserspaceTimestampMonotonic
//	userspace   to multi-user.target            guest's clock; its ActiveEnterTimestampMonotonic
//
// The guest's clock is CLOCK_MONOTONIC, which begins when the kernel does. What the loader leaves in EFI variables is not used: under
// TCG systemd-boot does not know how fast the processor counts.
//
// Times on the clock are only as good as the host is idle. Beside them stands the CPU time of QEMU in each phase, which other load
// hardly changes. A ratio is of the two minima, and of the two medians.
//
// It is a measurement and not a test: it prints whether the aim is met and never fails because of a number.
//
// Properties: org.freedesktop.systemd1(5).
package bench

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/proa-os/proa/qemu-tests/bench/debian"
	"github.com/proa-os/proa/qemu-tests/provision"
	"github.com/proa-os/proa/qemu-tests/vm"
	"github.com/proa-os/proa/qemu-tests/world"
)

// Aim is the ratio of Proa's time from kernel start to multi-user to Debian's that Proa wants to stay below.
const Aim = 0.6

// Options are the flags of cmd/bench.
type Options struct {
	Image    string    // folder of a built release, or of several, of which the newest is measured
	Out      string    // folder for the machines' files
	APT      string    // the host's apt configuration, normally /etc/apt
	Rounds   int       // measured boots of each machine
	Against  string    // as Image: another release to compare with instead of Debian, "" for Debian
	Messages io.Writer // progress
}

// Run boots both machines and returns what was measured.
func Run(ctx context.Context, o Options) (*Report, error) {
	if o.Rounds < 1 {
		return nil, fmt.Errorf("measure boots: %d rounds: expected at least one", o.Rounds)
	}
	repo, err := world.FindRepository()
	if err != nil {
		return nil, err
	}
	image, err := openImage(o.Image)
	if err != nil {
		return nil, err
	}
	b := &bench{Options: o}
	defer b.close()
	report := &Report{Rounds: o.Rounds}
	if o.Against == "" {
		report.Aim = Aim
	}
	other, err := b.other(ctx, repo, image)
	if err != nil {
		return nil, err
	}
	starts := []func(context.Context) error{func(ctx context.Context) error { return b.startProa(ctx, "proa", image) }, other}
	for i, start := range starts {
		if err := start(ctx); err != nil {
			return nil, err
		}
		s, err := b.first(ctx, b.machines[i])
		if err != nil {
			return nil, err
		}
		report.Systems = append(report.Systems, s)
	}
	report.Accelerator = string(b.machines[0].Accelerator().Use)
	if err := b.rounds(ctx, report); err != nil {
		return nil, err
	}
	b.close() // one machine at a time
	report.FirstBoots, err = MeasureFirstBoots(ctx, o)
	return report, err
}

// rounds measures later boots, in turn.
func (b *bench) rounds(ctx context.Context, report *Report) error {
	for round := range b.Rounds {
		for i, m := range b.machines {
			boot, err := b.boot(ctx, m, fmt.Sprintf("boot %d of %d", round+1, b.Rounds))
			if err != nil {
				return err
			}
			report.Systems[i].Boots = append(report.Systems[i].Boots, *boot)
		}
	}
	return nil
}

// openImage opens a release's folder, or the newest release in a folder of them.
func openImage(dir string) (world.Image, error) {
	if _, err := os.Stat(filepath.Join(dir, "release.json")); err == nil {
		return world.OpenImage(dir)
	}
	return world.NewestImage(dir)
}

// other returns what starts the machine that image is compared with.
func (b *bench) other(ctx context.Context, repo string, image world.Image) (func(context.Context) error, error) {
	if b.Against != "" {
		against, err := openImage(b.Against)
		return func(ctx context.Context) error { return b.startProa(ctx, "other", against) }, err
	}
	plain, err := debian.Make(ctx, debian.Options{Repository: repo, APT: b.APT, Progress: b.Messages})
	return func(ctx context.Context) error { return b.startDebian(ctx, plain) }, err
}

// machine is one of the two that are compared.
type machine struct {
	*vm.Machine
	name, title string
}

type bench struct {
	Options
	machines []machine
}

func (b *bench) close() {
	for _, m := range b.machines {
		if m.Close() == nil {
			m.RemoveDisk() // Large, and made again by the next run.
		}
	}
	b.machines = nil
}

func (b *bench) startProa(ctx context.Context, name string, image world.Image) error {
	key, err := vm.NewKey()
	if err != nil {
		return err
	}
	config, err := provision.New().SSHKey("root", key.AuthorizedKey()).JSON()
	if err != nil {
		return err
	}
	return b.start(ctx, name, "Proa "+image.Version(), vm.Config{Disk: image.Disk(), Ignition: config, Key: key})
}

func (b *bench) startDebian(ctx context.Context, image debian.Image) error {
	key, err := image.Key()
	if err != nil {
		return err
	}
	return b.start(ctx, "debian", fmt.Sprintf("plain Debian trixie, %d packages", image.Packages), vm.Config{Disk: image.Disk(), DiskSize: debian.DiskSize, Key: key})
}

func (b *bench) start(ctx context.Context, name, title string, c vm.Config) error {
	c.Name, c.Dir = "bench-"+name, filepath.Join(b.Out, name)
	m, err := vm.Start(ctx, c)
	if err != nil {
		return err
	}
	b.machines = append(b.machines, machine{m, name, title})
	return nil
}

// first measures the boot that Start has begun.
func (b *bench) first(ctx context.Context, m machine) (System, error) {
	boot, err := b.follow(ctx, m, "first boot", 0)
	if err != nil {
		return System{}, err
	}
	return System{Name: m.name, Title: m.title, First: *boot}, nil
}

// boot switches a machine on and measures.
func (b *bench) boot(ctx context.Context, m machine, what string) (*Boot, error) {
	used := m.CPUTime()
	if err := m.PowerOn(); err != nil {
		return nil, err
	}
	return b.follow(ctx, m, what, used)
}

// follow measures a boot that has begun, and has the machine power off.
func (b *bench) follow(ctx context.Context, m machine, what string, used time.Duration) (*Boot, error) {
	boot, err := measure(ctx, m.Machine, used)
	if err == nil {
		err = m.Shutdown(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("measure %s, %s: %w", m.name, what, err)
	}
	fmt.Fprintf(b.Messages, "bench: %-6s %-11s kernel to multi-user %5.1f s, %5.1f s of CPU\n", m.name, what, boot.ToMultiUser(), boot.CPU.ToMultiUser())
	return boot, nil
}
