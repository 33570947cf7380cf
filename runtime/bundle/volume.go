package bundle

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/volume"
)

// useVolumes makes the sources of all volumes ready: named ones are made and filled, directories of the machine made. It runs in the
// container's mount namespace, where its root is mounted already.
func useVolumes(st *store.Store, c *store.Container, u User, rootfs string) error {
	for i := range c.Volumes {
		v := &c.Volumes[i]
		var err error
		if v.Name != "" {
			var s *volume.Store
			if s, err = volume.Open(st.VolumesDir()); err == nil {
				s.Warn = st.Warn
				v.Source, err = s.Use(v.Name, rootfs, v.Target, !v.NoCopy)
			}
		}
		if _, serr := os.Stat(v.Source); v.Exists && serr != nil {
			err = fmt.Errorf("%w: make it, or say -v, which makes a directory", serr)
		}
		if err == nil && v.Source != "" {
			if err = os.MkdirAll(v.Source, 0o755); errors.Is(err, unix.ENOTDIR) {
				err = nil // a file
			}
		}
		if err == nil && v.Chown {
			err = volume.Chown(v.Source, int(u.UID), int(u.GID))
		}
		if err != nil {
			return fmt.Errorf("volume at %s: %w", v.Target, err)
		}
	}
	return nil
}
