package bundle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/secret"
	"github.com/proa-os/proa/runtime/store"
)

// useSecrets gives the container its secrets: as variables, and as files of a file system in memory that only this mount namespace has.
// place is a directory of this boot to mount it on. Neither lasts longer than the container's run.
func useSecrets(dir, place string, c *store.Container) error {
	if len(c.Secrets) == 0 {
		return nil
	}
	s, err := secret.Open(dir)
	if err != nil {
		return err
	}
	mounted := false
	for i, want := range c.Secrets {
		v, err := s.Get(want.Name)
		if errors.Is(err, secret.ErrNone) {
			return fmt.Errorf("%w: make it: containerctl secret create %s FILE", err, want.Name)
		}
		if err != nil {
			return err
		}
		data, err := s.Open(context.Background(), v)
		if err != nil {
			return err
		}
		if want.Env {
			c.Env = append(c.Env, want.Target+"="+string(data))
			continue
		}
		if !mounted {
			if err := mountMemory(place); err != nil {
				return fmt.Errorf("secrets: %w", err)
			}
			mounted = true
		}
		file := filepath.Join(place, strconv.Itoa(i))
		if err := os.WriteFile(file, data, 0o600); err != nil {
			return fmt.Errorf("secret %s: %w", want.Name, err)
		}
		if err := errors.Join(os.Chown(file, want.UID, want.GID), os.Chmod(file, fs.FileMode(want.Mode))); err != nil {
			return fmt.Errorf("secret %s: %w", want.Name, err)
		}
		c.Volumes = append(c.Volumes, store.Volume{Source: file, Target: path.Clean(want.Target), ReadOnly: true, Options: []string{"noexec", "nosuid"}})
	}
	return nil
}

func mountMemory(place string) error {
	if err := os.MkdirAll(place, 0o700); err != nil {
		return err
	}
	return unix.Mount("secrets", place, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=700,size=16m,nr_inodes=1k")
}
