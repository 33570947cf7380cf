package device

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/proa-os/proa/ignition/apply"
	"github.com/proa-os/proa/ignition/plan"
	"github.com/proa-os/proa/ignition/signature"
)

// Mount mounts the file systems of a plan below root, outer ones first, unless they are. A format that the config leaves open is seen on
// the device.
func Mount(ctx context.Context, m Machine, root string, ops []plan.Op) error {
	for _, op := range ops {
		mount, ok := op.(plan.Mount)
		if !ok {
			return fmt.Errorf("unknown operation %T", op)
		}
		if err := mountOne(ctx, m, root, mount); err != nil {
			return apply.Explain(op, err)
		}
	}
	return nil
}

func mountOne(ctx context.Context, m Machine, root string, op plan.Mount) error {
	d, err := m.Open(ctx, op.Device)
	if err != nil {
		return err
	}
	defer d.Close()
	format := op.Format
	if format == "" {
		found, err := signature.Probe(d, d.Size())
		if err != nil {
			return err
		}
		if len(found) != 1 {
			return problem("cannot mount "+d.Path(), "one file system", fmt.Sprint(found), "say which format it has, or let the config make one")
		}
		format = found[0].Type
	}
	if by, err := d.Busy(0); err != nil || by == "mounted on "+filepath.Join(root, op.Path) {
		return err
	}
	return m.Mount(ctx, op, format, d.Path())
}

// Unmount is the opposite of Mount, inner ones first.
func Unmount(m Machine, ops []plan.Op) error {
	for _, op := range slices.Backward(ops) {
		if mount, ok := op.(plan.Mount); ok {
			if err := m.Unmount(mount.Path); err != nil {
				return apply.Explain(op, err)
			}
		}
	}
	return nil
}

// Release closes the volumes and stops the arrays of a plan, inner ones first, so that the system opens and assembles them in its own
// way, with udev, as it will at every boot. What something uses stays, and failed is told why.
func Release(ctx context.Context, m Machine, ops []plan.Op, failed func(op plan.Op, err error)) {
	for _, op := range slices.Backward(ops) {
		var err error
		switch op := op.(type) {
		case plan.Luks:
			err = release(ctx, m, *op.Luks.Device, "volume "+op.Name, "cryptsetup", "close", op.Name)
		case plan.Raid:
			err = release(ctx, m, string(op.Devices[0]), "array ", "mdadm", "--stop", "/dev/md/"+op.Name)
		}
		if err != nil {
			failed(op, err)
		}
	}
}

func release(ctx context.Context, m Machine, device, by, program string, args ...string) error {
	d, err := m.Open(ctx, device)
	if err != nil {
		return err
	}
	now, err := d.Busy(0)
	if err := errors.Join(err, d.Close()); err != nil || !strings.HasPrefix(now, by) {
		return err
	}
	return m.Run(ctx, nil, program, args...)
}
