// Package device carries out the part of a plan that is about disks: partition tables, arrays, encrypted volumes, file systems, mounts.
//
// It stands between package plan, which says what is to be, and package apply, which writes files on what is made here. What happens to
// a partition table is decided by package partition, what a device holds is seen by package signature; a Machine is the kernel and
// the programs of the image, and in tests a directory of image files.
//
// Invariants:
//   - Nothing that holds data is changed unless the config says wipe, or this provisioning made it: what there is must match or
//     be nothing. Devices in use, and the partitions of the running system, are never changed.
//   - Run may stop anywhere and be run again. Before an operation destroys something, the journal (StateDir/devices.json) says
//     durably what it is about to do; afterwards, what came of it. So the next run takes half a file system for its own work and
//     makes it anew, goes on with the very table it had decided on, and leaves alone what is done and still there, even if
//     the config says wipe.
//   - A generated key is durable before it locks anything.
//
// No device link of udev is waited for: /dev/disk/by-* names are resolved here (links.go), and the kernel makes the nodes themselves.
//
// Not done: cex, which plan refuses. Arrays are made anew, whatever the devices hold, unless one of them is a member of one of that name: mdadm
// knows no other way, and a config has no word to wipe them by.
package device

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/coreos/ignition/v2/config/v3_6/types"

	"github.com/proa-os/proa/ignition/apply"
	"github.com/proa-os/proa/ignition/pin"
	"github.com/proa-os/proa/ignition/plan"
	"github.com/proa-os/proa/ignition/source"
	"github.com/proa-os/proa/internal/gpt"
)

// A Machine has devices and the programs that work on them.
type Machine interface {
	// Open opens a device by any name below /dev, when it is there.
	Open(ctx context.Context, name string) (Device, error)
	// Run runs a program of the image to its end. input is its standard input.
	Run(ctx context.Context, input []byte, program string, args ...string) error
	// Mount and Unmount are mount(8) and umount(8) below the root of the tree.
	Mount(ctx context.Context, m plan.Mount, format, device string) error
	Unmount(path string) error
	// UUID returns a random one.
	UUID() (string, error)
}

// A Device is an opened disk, partition, array or volume.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	Close() error
	Path() string    // of the node
	Size() int64     // bytes
	SectorSize() int // bytes
	ID() string      // of a disk, as its maker gives it; "" for what has none
	// Busy says what uses the device, "" for nothing. A partition number asks about that partition, 0 about the device itself.
	Busy(partition int) (string, error)
	// Own reports whether a partition is one that the running system needs, 0 whether any is.
	Own(partition int) (bool, error)
	// Follow makes the kernel know the partitions of a table, nil for none. It may be called again.
	Follow(t *gpt.Table) error
}

// Options are what Run needs besides machine and plan.
type Options struct {
	Root  *os.Root // of the tree: keys, crypttab and journal
	Fetch func(ctx context.Context, r types.Resource, sink source.Sink) error
	// Bind gives a volume a further key, locked by a pin; existing is a key that it has. Unlock opens a volume by that.
	Bind   func(ctx context.Context, device string, p pin.Pin, existing []byte) error
	Unlock func(ctx context.Context, device, name string, options ...string) error
	// Fault is asked before every step that lasts, and stops Run with the error it returns; nil never does.
	Fault func(step string) error
	// Done is told after each operation, and in words what was found or made; nil is fine.
	Done func(op plan.Op, outcome string)
}

// Run carries out ops, which are those of plan.Split, in their order. An error that an operation met is config.Issues.
func Run(ctx context.Context, m Machine, ops []plan.Op, o Options) error {
	if len(ops) == 0 {
		return nil
	}
	r := &run{ctx: ctx, m: m, o: o}
	if err := r.openJournal(); err != nil {
		return fmt.Errorf("open journal of devices: %w", err)
	}
	for _, op := range ops {
		if err := ctx.Err(); err != nil {
			return err
		}
		outcome, err := r.do(op)
		if err != nil {
			return apply.Explain(op, err)
		}
		if o.Done != nil {
			o.Done(op, outcome)
		}
	}
	return nil
}

type run struct {
	ctx     context.Context
	m       Machine
	o       Options
	journal map[string]record
}

func (r *run) do(op plan.Op) (outcome string, err error) {
	switch op := op.(type) {
	case plan.Disk:
		return r.disk(op)
	case plan.Raid:
		return r.raid(op)
	case plan.Luks:
		return r.luks(op)
	case plan.Filesystem:
		return r.filesystem(op)
	}
	return "", fmt.Errorf("unknown operation %T", op)
}

func (r *run) step(format string, args ...any) error {
	if r.o.Fault == nil {
		return nil
	}
	return r.o.Fault(fmt.Sprintf(format, args...))
}

// exec runs a program of the image as one step.
func (r *run) exec(input []byte, program string, args ...string) error {
	if err := r.step("run %s", program); err != nil {
		return err
	}
	return r.m.Run(r.ctx, input, program, args...)
}

// withDevice opens a device for the length of f.
func (r *run) withDevice(name string, f func(Device) (string, error)) (string, error) {
	d, err := r.m.Open(r.ctx, name)
	if err != nil {
		return "", err
	}
	outcome, err := f(d)
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return outcome, err
}

// erase takes all signatures away, durably.
func (r *run) erase(d Device, erase func(io.WriterAt, int64) error) error {
	if err := r.step("erase %s", d.Path()); err != nil {
		return err
	}
	if err := erase(d, d.Size()); err != nil {
		return err
	}
	return d.Sync()
}

// keyOf tells operations apart by everything that the config says of them.
func keyOf(kind string, v any) (string, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(append([]byte(kind+" "), b...))
	return hex.EncodeToString(sum[:]), nil
}

// problem is apply's: what, expected, found, next step.
func problem(what, expected, found, next string) error {
	return apply.NewProblem(what, expected, found, next)
}
