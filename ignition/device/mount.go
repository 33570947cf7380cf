package device

import (
	"context"
	"fmt"
	"slices"

	"github.com/proa-os/proa/ignition/apply"
	"github.com/proa-os/proa/ignition/plan"
	"github.com/proa-os/proa/ignition/signature"
)

// Mount mounts the file systems of a plan, outer ones first. A format that the config leaves open is seen on the device.
func Mount(ctx context.Context, m Machine, ops []plan.Op) error {
	for _, op := range ops {
		mount, ok := op.(plan.Mount)
		if !ok {
			return fmt.Errorf("unknown operation %T", op)
		}
		if err := mountOne(ctx, m, mount); err != nil {
			return apply.Explain(op, err)
		}
	}
	return nil
}

func mountOne(ctx context.Context, m Machine, op plan.Mount) error {
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
	if by, err := d.Busy(0); err != nil || by == "mounted on "+op.Path {
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
