package run

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/scope"
)

// Delete removes what is left of a stopped container. With force it kills a live one first, and a container that does
// not exist is no error.
func (r Root) Delete(id string, force bool) error {
	c, err := r.Load(id)
	if err != nil {
		if force && errors.Is(err, ErrNotExist) {
			return nil
		}
		return err
	}
	if c.Status != specs.StateStopped {
		if !force {
			return fmt.Errorf("delete %s: it is %s: stop it first, or use --force", id, c.Status)
		}
		if err := c.kill(); err != nil {
			return fmt.Errorf("delete %s: %w", id, err)
		}
		if c.Status == specs.StateCreating {
			c.claimGroup()
		}
	}
	return c.remove()
}

// remove removes what is left of a container that has ended.
func (c *Container) remove() error {
	if err := c.removeGroup(); err != nil {
		return fmt.Errorf("delete %s: %w", c.ID, err)
	}
	if err := c.removeRdt(); err != nil {
		return fmt.Errorf("delete %s: %w", c.ID, err)
	}
	if err := c.unmount(); err != nil {
		return fmt.Errorf("delete %s: %w", c.ID, err)
	}
	s, serr := c.poststopConfig()
	if err := c.removeDir(); err != nil {
		return fmt.Errorf("delete %s: %w", c.ID, err)
	}
	if serr != nil {
		return nil // one that died while it was created may have no configuration
	}
	if err := c.poststop(s); err != nil {
		fmt.Fprintf(os.Stderr, "oci-runtime: warning: %v\n", err) // runtime.md: the lifecycle goes on
	}
	return nil
}

// poststopConfig is config for a container with hooks that are still to run, and nil if there are none: the parsing is a good part of
// a short container's time.
func (c *Container) poststopConfig() (*specs.Spec, error) {
	if c.hookless {
		return nil, nil
	}
	b, err := readFile(filepath.Join(c.dir, "config.json"))
	if err != nil {
		return nil, err
	}
	// In any case, and written with escapes, as the decoder takes it.
	if !bytes.Contains(b, []byte(`\u`)) && !bytes.Contains(bytes.ToLower(b), []byte(`"poststop"`)) {
		return nil, nil
	}
	return c.config()
}

// unmount takes the container's file systems out of the caller's mount namespace.
func (c *Container) unmount() error {
	if c.Mounted == "" {
		return nil
	}
	if err := unix.Unmount(c.Mounted, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return &os.PathError{Op: "unmount", Path: c.Mounted, Err: err}
	}
	return nil
}

// removeRdt removes the groups of resctrl that were made for the container.
func (c *Container) removeRdt() error {
	var errs []error
	for _, d := range c.RdtMade {
		if err := unix.Rmdir(d); err != nil && err != unix.ENOENT {
			errs = append(errs, &os.PathError{Op: "remove group", Path: d, Err: err})
		}
	}
	return errors.Join(errs...)
}

// removeGroup kills what is in the container's own group, if it has one, and removes it.
func (c *Container) removeGroup() error {
	var serr error
	if c.Scope != "" {
		serr = scope.Stop(c.Scope)
	}
	g, err := c.group()
	if err != nil {
		return serr
	}
	// Without systemd's help as well: what is in the group must end.
	return errors.Join(g.Remove(), serr)
}

// removeDir removes the state directory.
func (c *Container) removeDir() error {
	for _, f := range []string{"state.json", "config.json"} {
		unix.Unlink(filepath.Join(c.dir, f))
	}
	if unix.Rmdir(c.dir) == nil {
		return nil
	}
	return os.RemoveAll(c.dir) // it was never started, or somebody has put something there
}
