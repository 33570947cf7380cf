// Package oneshot measures what a person waits for who runs one container for one command: `containerctl run --rm` of a program that only
// exits, end to end on a machine, beside `crun run` of the same program with the same namespaces, capabilities and seccomp list.
//
//	crun run            a bundle that lies there: no image, no unit, no journal
//	crun, as a scope    the same with --systemd-cgroup, as podman calls it: systemd knows the container, too
//	oci-runtime run     the same bundle
//	--network none      containerctl run --rm: container, unit, overlay, bundle, start, end, all removed
//	bridge              with the default network: what that costs
//	systemd-run --wait  the same program as a unit, and nothing else: what a service manager costs that is asked for a service
//
// The machine is a release in QEMU. crun comes from the pinned peers (package start), with its libraries; it runs from memory, as the
// machine's own programs come from its cache. Package rounds runs the commands there, shuffled, and takes the times.
package oneshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/proa-os/proa/internal/arch"
	"github.com/proa-os/proa/qemu-tests/bench/rounds"
	"github.com/proa-os/proa/qemu-tests/bench/start"
	"github.com/proa-os/proa/qemu-tests/provision"
	"github.com/proa-os/proa/qemu-tests/vm"
	"github.com/proa-os/proa/qemu-tests/world"
)

// Options of Run.
type Options struct {
	Image     string // folder of a built release
	Out       string // folder for what is made meanwhile
	Manifests string // folder with peers.toml and its lock
	APT       string // the host's apt configuration, normally /etc/apt
	Rounds    int
	Messages  io.Writer
}

// bench is what the steps share.
type bench struct {
	Options
	ctx     context.Context
	host    arch.Arch // the machine's, too
	machine *vm.Machine
}

// Run boots the release and measures.
func Run(ctx context.Context, o Options) (r *Report, err error) {
	b := &bench{Options: o, ctx: ctx}
	if b.Out, err = filepath.Abs(o.Out); err != nil {
		return nil, err
	}
	if b.host, err = arch.Host(); err != nil {
		return nil, err
	}
	defer func() {
		if b.machine != nil {
			if err != nil {
				err = fmt.Errorf("%w\n%s", err, b.machine.Explain())
			}
			err = errors.Join(err, b.machine.Close(), b.machine.RemoveDisk())
		}
	}()
	registry, err := world.StartRegistry()
	if err != nil {
		return nil, err
	}
	defer registry.Close()
	if err := b.boot(); err != nil {
		return nil, err
	}
	if err := b.furnish(registry); err != nil {
		return nil, err
	}
	samples, err := b.measure(registry.GuestHost() + "/" + image)
	if err != nil {
		return nil, err
	}
	return newReport(o.Rounds, string(b.machine.Accelerator().Use), samples), nil
}

func (b *bench) boot() error {
	img, err := world.OpenImage(b.Image)
	if err != nil {
		return err
	}
	key, err := vm.NewKey()
	if err != nil {
		return err
	}
	ignition, err := provision.New().SSHKey("root", key.AuthorizedKey()).JSON()
	if err != nil {
		return err
	}
	fmt.Fprintln(b.Messages, "booting", img.Version())
	b.machine, err = vm.Start(b.ctx, vm.Config{Name: "oneshot", Dir: filepath.Join(b.Out, "machine"), Disk: img.Disk(), Ignition: ignition, Key: key, Timeout: time.Hour})
	if err == nil {
		_, err = b.machine.Run(b.ctx, "root", "systemctl is-system-running --wait")
	}
	return err
}

// measure runs the plan on the machine.
func (b *bench) measure(image string) (map[string][]rounds.Sample, error) {
	bundle := []string{"--root", place + "/state", "run", "--bundle", place + "/bundle", "bench"}
	scope := []string{"--systemd-cgroup", "--root", place + "/state", "run", "--bundle", place + "/scope", "bench"}
	plan, err := json.Marshal(rounds.Plan{Rounds: b.Rounds, Settle: 300 * time.Millisecond, Stat: "/sys/fs/cgroup/cpu.stat", Commands: []rounds.Command{
		{Name: Crun, Args: append([]string{place + "/crun"}, bundle...)},
		{Name: Scope, Args: append([]string{place + "/crun"}, scope...)},
		{Name: OCIRuntime, Args: append([]string{"/usr/bin/oci-runtime"}, bundle...)},
		{Name: None, Args: []string{"/usr/bin/containerctl", "run", "--rm", "--network", "none", image}},
		{Name: Bridge, Args: []string{"/usr/bin/containerctl", "run", "--rm", image}},
		{Name: Service, Args: []string{"/usr/bin/systemd-run", "--quiet", "--wait", "--collect", place + "/bundle/rootfs/bin/true"}},
	}})
	if err != nil {
		return nil, err
	}
	if err := b.machine.CopyTo(b.ctx, "root", place+"/plan", 0o600, plan); err != nil {
		return nil, err
	}
	fmt.Fprintln(b.Messages, "measuring", b.Rounds, "rounds")
	out, err := b.machine.Run(b.ctx, "root", inside(b.host.LibDir()))
	if err != nil {
		return nil, err
	}
	var samples map[string][]rounds.Sample
	if err := json.Unmarshal([]byte(out), &samples); err != nil {
		return nil, fmt.Errorf("read samples %q: %w", out, err)
	}
	return samples, nil
}

// writeBundle makes the bundle here: its files by path.
func writeBundle(dir string) (map[string][]byte, error) {
	if err := start.WriteBundle(dir, "cgroup"); err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, name := range []string{"config.json", "rootfs/bin/true"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		files[name] = b
	}
	return files, nil
}
