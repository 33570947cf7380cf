package stage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/proa-os/proa/ignition/plan"
	"github.com/proa-os/proa/ignition/platform"
)

// A Boot is what FirstBoot needs to know of the boot that it is in, and how it speaks to the service manager.
type Boot struct {
	ID        string // /proc/sys/kernel/random/boot_id
	Now       time.Time
	Systemctl func(ctx context.Context, args ...string) error
}

// FirstBoot does all of a first boot in one process, as to start a program costs more than most stages do: every stage, the marker, and then
// it has systemd go on to the target that the machine is for. What fails leaves the machine where it is.
//
// systemd reads everything anew before it goes on, unless nothing was made that it reads: then what it has read at its own start is right,
// but for the default target: provision-generator has put another one in the place of the machine's own, which is named directly then.
// provision-reread.service puts that right when the machine is up.
func FirstBoot(ctx context.Context, m *platform.Machine, o Options, b Boot) error {
	o.Stage = strings.Join(Stages(), ",")
	err := run(ctx, m, o)
	if errors.Is(err, errRestarting) {
		return nil
	}
	reread := false
	if err == nil {
		reread, err = rereads(o)
	}
	if err == nil {
		err = finish(ctx, o, b.ID, b.Now)
	}
	if err == nil {
		Forget(ctx, m, o)
		err = onward(ctx, o, b, reread)
	}
	if err != nil {
		if werr := writeFailure(o.Failure, err); werr != nil {
			o.Log.Warn("cannot keep the error for the consoles", "error", werr)
		}
	}
	return err
}

// rereads reports whether the cached config makes something that systemd reads, or one of its generators.
func rereads(o Options) (bool, error) {
	st, err := load(o)
	if err != nil {
		return false, err
	}
	ops, err := plan.Build(&st.Merged)
	return plan.Rereads(ops), err
}

// onward has systemd go on. State that is elsewhere now is mounted by the initramfs: then the machine starts again.
func onward(ctx context.Context, o Options, b Boot, reread bool) error {
	if _, err := os.Stat(o.Restart); err == nil {
		return b.Systemctl(ctx, "--no-block", "reboot")
	}
	if _, err := os.Stat(o.NeedNet); err == nil {
		if err := b.Systemctl(ctx, "stop", networkUnit); err != nil {
			o.Log.Warn("the network of provisioning did not stop", "unit", networkUnit, "error", err)
		}
	}
	if target := ownTarget(o.Root); target != "" && !reread {
		if err := writeRuntimeFile(o.Reread, nil, 0o644); err != nil {
			return err
		}
		return b.Systemctl(ctx, "--no-block", "isolate", target)
	}
	if err := b.Systemctl(ctx, "daemon-reload"); err != nil {
		return err
	}
	return b.Systemctl(ctx, "--no-block", "isolate", defaultTarget)
}

const (
	defaultTarget = "default.target"
	// earlyTarget is what provision-generator makes.
	earlyTarget = "run/systemd/generator.early/" + defaultTarget
)

// unitDirs are the directories of units that a default target can be in, but for the generator's: the first wins (systemd.unit(5)).
func unitDirs() []string {
	return []string{"etc/systemd/system.control", "run/systemd/system.control", "etc/systemd/system", "run/systemd/system", "run/systemd/generator",
		"usr/local/lib/systemd/system", "usr/lib/systemd/system", "run/systemd/generator.late"}
}

// ownTarget is the target that default.target is a link to when nobody provisions; "" if only systemd can tell.
func ownTarget(root string) string {
	target := ""
	if _, err := os.Readlink(filepath.Join(root, earlyTarget)); err != nil {
		return ""
	}
	for _, dir := range append([]string{path.Dir(earlyTarget)}, unitDirs()...) {
		for _, beside := range []string{".d", ".wants", ".requires", ".upholds"} { // what belongs to that name, and not to the target
			if _, err := os.Lstat(filepath.Join(root, dir, defaultTarget+beside)); !errors.Is(err, fs.ErrNotExist) {
				return ""
			}
		}
		if dir == path.Dir(earlyTarget) || target != "" {
			continue
		}
		to, err := os.Readlink(filepath.Join(root, dir, defaultTarget))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil || path.Ext(to) != ".target" || path.Base(to) == defaultTarget:
			return ""
		default:
			target = path.Base(to)
		}
	}
	return target
}

// Systemctl runs systemctl.
func Systemctl(ctx context.Context, args ...string) error {
	if out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
