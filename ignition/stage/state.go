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
	"github.com/proa-os/proa/internal/durable"
)

// newState is where the file system that becomes /var is mounted while state is copied.
const newState = "/run/ignition/var"

// A home is a file system that state is moved to.
type home struct {
	name, uuid string
	// fill copies state there, and has the copy marked as provisioned.
	fill func(mark func(root *os.Root, dir string) error) error
}

// moveState copies state to its new home, marks the copy as provisioned, and then says in the old state where the new
// one is: with that the machine is provisioned, from its next boot on.
func (o Options) moveState(to *home, root *os.Root, mark func(root *os.Root, dir string) error) error {
	if err := o.step("copy state"); err != nil {
		return err
	}
	if err := to.fill(mark); err != nil {
		return fmt.Errorf("move state to %s: %w", to.name, err)
	}
	if err := o.step("say where state is"); err != nil {
		return err
	}
	if err := durable.WriteFile(root, filepath.Join(plan.StatePath[1:], relocate.Pointer), relocate.Text(to.uuid), 0o644); err != nil {
		return err
	}
	o.Log.Info("state is elsewhere from the next boot on", "device", to.name, "uuid", to.uuid)
	return writeRuntimeFile(o.Restart, nil, 0o644)
}

// homeOn is the home on a device; nil if the machine runs from there already.
func (o Options) homeOn(ctx context.Context, where string) (*home, error) {
	d, err := device.System{Root: o.Root, Timeout: deviceTimeout}.Open(ctx, where)
	if err != nil {
		return nil, err
	}
	by, err := d.Busy(0)
	var found []signature.Signature
	if err == nil {
		found, err = signature.Probe(d, d.Size())
	}
	name := d.Path()
	if err := errors.Join(err, d.Close()); err != nil {
		return nil, fmt.Errorf("look at %s: %w", name, err)
	}
	if by == "mounted on "+plan.StatePath {
		return nil, nil
	}
	if len(found) != 1 || found[0].Type != "ext4" || by != "" {
		return nil, fmt.Errorf("move state to %s: expected an ext4 file system that nobody uses, found %v, %s", name, found, by)
	}
	return &home{name, found[0].UUID, func(mark func(*os.Root, string) error) error { return copyState(name, mark) }}, nil
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
