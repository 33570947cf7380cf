package vm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// A snapshot is a folder with the disk, the firmware's variables and, of a machine that was on, its memory and devices.
const (
	snapshotDisk   = "disk.raw"
	snapshotVars   = "vars.fd"
	snapshotMemory = "memory"
)

func (m *Machine) snapshotDir(name string) string {
	return filepath.Join(m.cfg.Dir, "snapshot-"+name)
}

// Snapshot keeps the machine as it is under a name, for Restore. Of a machine that is off that is its disk and firmware
// variables, copied sparsely. One that is on is paused meanwhile, and its memory and devices are kept as well: a story
// boots once and tries many endings. QEMU cannot do that with an NVMe disk.
func (m *Machine) Snapshot(ctx context.Context, name string) error {
	if err := m.snapshot(ctx, m.snapshotDir(name)); err != nil {
		os.RemoveAll(m.snapshotDir(name)) // Half a snapshot must not look like one.
		return fmt.Errorf("keep snapshot %s of %s: %w", name, m.cfg.Name, err)
	}
	m.mu.Lock()
	m.kept[name] = m.now
	m.mu.Unlock()
	m.console.Note("snapshot " + name)
	return nil
}

func (m *Machine) snapshot(ctx context.Context, dir string) (err error) {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if m.whyOff() == nil {
		if err := m.Pause(ctx); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, m.Continue(ctx)) }()
		if err := m.saveMemory(ctx, filepath.Join(dir, snapshotMemory)); err != nil {
			return err
		}
	}
	return m.copyState(filepath.Join(dir, snapshotDisk), m.hw.disk, filepath.Join(dir, snapshotVars), m.hw.vars)
}

// copyState copies a disk and firmware variables, each if the machine has them.
func (m *Machine) copyState(toDisk, fromDisk, toVars, fromVars string) error {
	if m.hw.disk != "" {
		if err := CopySparse(toDisk, fromDisk, 0); err != nil {
			return err
		}
	}
	if m.hw.vars == "" {
		return nil
	}
	return copyFile(toVars, fromVars)
}

// Saved is a snapshot of a machine that was on, from which others can go on: Config.Resume.
type Saved struct {
	dir string
	hw  hardware
	cfg Config
}

// Saved is the snapshot of a name, for other machines. They need it as long as they go on from it: RemoveDisk takes it away.
func (m *Machine) Saved(name string) (*Saved, error) {
	m.mu.Lock()
	hw, ok := m.kept[name]
	m.mu.Unlock()
	dir := m.snapshotDir(name)
	if _, err := os.Stat(filepath.Join(dir, snapshotMemory)); !ok || err != nil {
		return nil, fmt.Errorf("snapshot %s of %s: there is none of the machine while it was on", name, m.cfg.Name)
	}
	return &Saved{dir, hw, m.cfg}, nil
}

// resume goes on from another machine's snapshot, on a disk and with ports of its own.
func (m *Machine) resume(s *Saved) error {
	if m.hw.vars != "" {
		if err := copyFile(m.hw.vars, filepath.Join(s.dir, snapshotVars)); err != nil {
			return err
		}
	}
	hw := s.hw
	hw.name, hw.disk, hw.vars, hw.forwards = m.hw.name, m.hw.disk, m.hw.vars, m.hw.forwards
	m.mu.Lock()
	m.boots = 1
	m.mu.Unlock()
	m.console.Note("going on from " + s.dir)
	return m.goOn(m.ctx, hw, filepath.Join(s.dir, snapshotMemory))
}

// resumed is c with what the machine of its snapshot has.
func (c Config) resumed() (Config, error) {
	of := c.Resume.cfg
	switch {
	case c.TPM || of.TPM || c.LogWrites || c.VirtioPorts:
		return c, errors.New("a machine that goes on from a snapshot has no TPM, no log of writes and no virtio ports")
	case c.Disk != "" || c.Kernel != "" || c.Ignition != nil || c.Key != nil:
		return c, errors.New("a machine that goes on from a snapshot has that one's disk, kernel, config and key")
	}
	c.Disk, c.Kernel, c.Initrd, c.Ignition, c.Key = filepath.Join(c.Resume.dir, snapshotDisk), of.Kernel, of.Initrd, of.Ignition, of.Key
	c.DiskSize, c.Firmware, c.Bus, c.SectorSize = of.DiskSize, of.Firmware, of.Bus, of.SectorSize
	c.MemoryMiB, c.CPUs = of.MemoryMiB, of.CPUs
	c.KernelArgs = slices.Concat(of.KernelArgs, c.KernelArgs)
	return c, nil
}

// saveMemory has QEMU write its state as for a migration (QMP reference, migrate).
func (m *Machine) saveMemory(ctx context.Context, file string) error {
	ctx, cancel := m.deadline(ctx, m.cfg.Timeout)
	defer cancel()
	// Without a limit, as nobody waits for the guest's network.
	if err := m.Execute(ctx, "migrate-set-parameters", map[string]any{"max-bandwidth": int64(1) << 40}, nil); err != nil {
		return err
	}
	if err := m.Execute(ctx, "migrate", map[string]any{"uri": "file:" + file}, nil); err != nil {
		return err
	}
	return poll(ctx, func() (bool, error) {
		var is struct {
			Status string
			Why    string `json:"error-desc"`
		}
		if err := m.Execute(ctx, "query-migrate", nil, &is); err != nil {
			return false, err
		}
		if is.Status == "failed" || is.Status == "cancelled" {
			return false, fmt.Errorf("QEMU says %s: %s", is.Status, is.Why)
		}
		return is.Status == "completed", nil
	})
}

// Restore goes back to a snapshot: what the machine did since is lost. After a snapshot of a machine that was on it is on
// again, in the same moment: no firmware starts and Boots does not change. Its ssh connections are new ones.
func (m *Machine) Restore(ctx context.Context, name string) error {
	if err := m.restore(ctx, name); err != nil {
		return fmt.Errorf("go back to snapshot %s of %s: %w", name, m.cfg.Name, err)
	}
	return nil
}

func (m *Machine) restore(ctx context.Context, name string) error {
	dir := m.snapshotDir(name)
	if m.hw.writeLog != "" {
		return errors.New("the disk's writes are logged; a log has no way back")
	}
	if _, err := os.Stat(dir); err != nil {
		return err
	}
	if err := m.PowerCut(); err != nil {
		return err
	}
	m.console.Note("going back to " + filepath.Base(dir))
	if err := m.copyState(m.hw.disk, filepath.Join(dir, snapshotDisk), m.hw.vars, filepath.Join(dir, snapshotVars)); err != nil {
		return err
	}
	memory := filepath.Join(dir, snapshotMemory)
	if _, err := os.Stat(memory); errors.Is(err, fs.ErrNotExist) {
		return nil // The machine was off.
	}
	m.mu.Lock()
	hw := m.kept[name]
	m.mu.Unlock()
	return m.goOn(ctx, hw, memory)
}

// goOn starts a machine that is off with saved memory and devices, in the hardware that they are of.
func (m *Machine) goOn(ctx context.Context, hw hardware, memory string) error {
	hw.memory = memory
	m.mu.Lock()
	m.cut = false
	err := m.start(hw)
	m.mu.Unlock()
	if err != nil {
		return err
	}
	ctx, cancel := m.deadline(ctx, m.cfg.Timeout)
	defer cancel()
	return poll(ctx, func() (bool, error) {
		var is struct{ Status string }
		if err := m.Execute(ctx, "query-status", nil, &is); err != nil {
			return false, err
		}
		if is.Status == "paused" { // It was saved so.
			return true, m.Continue(ctx)
		}
		return is.Status == "running", nil
	})
}

// poll asks often, for what QEMU sends no event.
func poll(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
