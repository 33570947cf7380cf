package vm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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
	if err := m.restore(ctx, m.snapshotDir(name)); err != nil {
		return fmt.Errorf("go back to snapshot %s of %s: %w", name, m.cfg.Name, err)
	}
	return nil
}

func (m *Machine) restore(ctx context.Context, dir string) error {
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
	m.cut = false
	err := m.start(memory)
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
