package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/ignition/apply"
	"github.com/proa-os/proa/ignition/device"
	"github.com/proa-os/proa/ignition/plan"
	"github.com/proa-os/proa/ignition/relocate"
	"github.com/proa-os/proa/ignition/signature"
)

// newState is where the file system that becomes /var is mounted while state is copied.
const newState = "/run/ignition/var"

// moveState copies state to the device that the config names, marks the copy as provisioned, and then says in the old state where the new
// one is: with that the machine is provisioned, from its next boot on. A machine that runs from there already is only marked.
func moveState(ctx context.Context, o Options, where string, root *os.Root, mark func(root *os.Root, dir string) error) error {
	d, err := device.System{Root: o.Root, Timeout: deviceTimeout}.Open(ctx, where)
	if err != nil {
		return err
	}
	by, err := d.Busy(0)
	var found []signature.Signature
	if err == nil {
		found, err = signature.Probe(d, d.Size())
	}
	name := d.Path()
	if err := errors.Join(err, d.Close()); err != nil {
		return fmt.Errorf("look at %s: %w", name, err)
	}
	if by == "mounted on "+plan.StatePath {
		return mark(root, apply.StateDir)
	}
	if len(found) != 1 || found[0].Type != "ext4" || by != "" {
		return fmt.Errorf("move state to %s: expected an ext4 file system that nobody uses, found %v, %s", name, found, by)
	}
	if err := copyState(name, mark); err != nil {
		return fmt.Errorf("move state to %s: %w", name, err)
	}
	if err := writeDurably(root, filepath.Join(plan.StatePath[1:], relocate.Pointer), relocate.Text(found[0].UUID)); err != nil {
		return err
	}
	o.Log.Info("state is elsewhere from the next boot on", "device", name, "uuid", found[0].UUID)
	return writeRuntimeFile(o.Restart, nil, 0o644)
}

func copyState(device string, mark func(root *os.Root, dir string) error) (err error) {
	if err := os.MkdirAll(newState, 0o700); err != nil {
		return err
	}
	if err := unix.Mount(device, newState, "ext4", unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	defer func() {
		if uerr := unix.Unmount(newState, 0); uerr != nil {
			err = errors.Join(err, fmt.Errorf("unmount %s: %w", newState, uerr))
		}
	}()
	if err := relocate.Copy(plan.StatePath, newState); err != nil {
		return err
	}
	to, err := os.OpenRoot(newState)
	if err != nil {
		return err
	}
	dir, err := filepath.Rel(plan.StatePath, "/"+apply.StateDir)
	if err == nil {
		err = mark(to, dir)
	}
	return errors.Join(err, to.Close())
}
