package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/init/rescue"
	"github.com/proa-os/proa/init/state"
)

// sysBlock is where the kernel lists block devices.
const sysBlock = "/sys/class/block"

// follow mounts the state that the one on varDir points to in its place, if it does so.
func follow(drivers func() bool, tools state.Tools, console *rescue.Console) error {
	root, err := os.OpenRoot(varDir)
	if err != nil {
		return err
	}
	id, ok, err := state.Elsewhere(root)
	if err := errors.Join(err, root.Close()); err != nil || !ok {
		return err
	}
	console.Step("looking for state on the file system %s", id)
	path, err := awaitState(id, drivers, console.Note)
	if err != nil {
		return err
	}
	if err := unix.Unmount(varDir, 0); err != nil {
		return fmt.Errorf("unmount the machine's own state: %w", err)
	}
	console.Step("mounting state (%s)", path)
	return tools.Mount(path, varDir, console.Note)
}

// awaitState looks until the file system is there, as long as for the disk of the slots.
func awaitState(id state.ID, drivers func() bool, note func(string, ...any)) (string, error) {
	start, patient := time.Now(), true
	for {
		if drivers() {
			start = time.Now()
		}
		waited := time.Since(start)
		found, err := holders(id, sysBlock, "/dev")
		switch {
		case err != nil:
			return "", err
		case len(found) == 1:
			return found[0], nil
		case len(found) > 1:
			return "", fmt.Errorf("find state: expected one file system with UUID %s, found it on %s; detach the copy", id, strings.Join(found, " and "))
		case waited > diskTimeout:
			return "", fmt.Errorf("find state: the ext4 file system with UUID %s is not there after %d seconds; attach its disk, or remove /%s from the state partition of this machine from another system: it goes on with what it had before its config was applied",
				id, diskTimeout/time.Second, state.Pointer)
		}
		if patient && waited > diskPatient {
			note("still waiting for the disk of state")
			patient = false
		}
		time.Sleep(diskPoll)
	}
}

// holders are the devices with that file system. What lies on other devices is not there before systemd opens it.
func holders(id state.ID, sys, dev string) (found []string, err error) {
	entries, err := os.ReadDir(sys)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name := e.Name()
		skip := false
		for _, kind := range []string{"dm-", "fd", "loop", "md", "ram", "sr", "zram"} {
			skip = skip || strings.HasPrefix(name, kind)
		}
		if skip {
			continue
		}
		path := filepath.Join(dev, strings.ReplaceAll(name, "!", "/"))
		f, err := os.Open(path)
		if err != nil {
			continue // without a medium, or just gone
		}
		if state.Is(f, id) {
			found = append(found, path)
		}
		f.Close()
	}
	return found, nil
}
