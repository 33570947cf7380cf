package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// journalPort is the virtio port that the journal of a failed boot is written to, if the machine has one: the name that upstream uses.
const journalPort = "com.coreos.ignition.journal"

// portTimeout is how long the driver may take to show its ports, and a reader to take the journal.
const portTimeout = 30 * time.Second

// An Exporter writes the journal to the host of a virtual machine, where nobody can log in any more.
type Exporter struct {
	Sys, Dev string                                           // /sys, /dev
	Load     func(ctx context.Context, names ...string) error // loads kernel modules
	Journal  func(ctx context.Context, w io.Writer) error     // writes the journal of this boot, a line of JSON for each entry
}

// Export looks for the port and writes. A machine without one, which is most of them, is no error.
func (e Exporter) Export(ctx context.Context) error {
	if !e.hasSerial() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, portTimeout)
	defer cancel()
	if err := e.Load(ctx, "virtio_console"); err != nil {
		return fmt.Errorf("export journal: %w", err)
	}
	name, err := e.port(ctx)
	if err != nil || name == "" {
		return err
	}
	f, err := os.OpenFile(filepath.Join(e.Dev, name), os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("export journal: %w", err)
	}
	deadline, _ := ctx.Deadline()
	if err := f.SetWriteDeadline(deadline); err != nil && !errors.Is(err, os.ErrNoDeadline) {
		return errors.Join(fmt.Errorf("export journal: %w", err), f.Close())
	}
	if err := errors.Join(e.Journal(ctx, f), f.Close()); err != nil {
		return fmt.Errorf("export journal to %s: %w", journalPort, err)
	}
	return nil
}

// hasSerial reports whether there is a device that can have ports (virtio specification 1.2, 5.3: device ID 3).
func (e Exporter) hasSerial() bool {
	names, _ := filepath.Glob(filepath.Join(e.Sys, "bus/virtio/devices/*/device")) // the pattern is a good one
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(b)) == "0x0003" {
			return true
		}
	}
	return false
}

// port waits until the host has named the ports, and returns the one for the journal; "" if there are others only.
func (e Exporter) port(ctx context.Context) (string, error) {
	const class = "class/virtio-ports"
	for {
		entries, err := os.ReadDir(filepath.Join(e.Sys, class))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("export journal: %w", err)
		}
		for _, entry := range entries {
			if b, err := os.ReadFile(filepath.Join(e.Sys, class, entry.Name(), "name")); err == nil && strings.TrimSpace(string(b)) == journalPort {
				return entry.Name(), nil
			}
		}
		select {
		case <-ctx.Done():
			return "", nil
		case <-time.After(50 * time.Millisecond):
		}
	}
}
