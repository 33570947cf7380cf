package store

import (
	"fmt"

	"github.com/proa-os/proa/runtime/image"
)

// Restore makes a name stand again for the image it stood for when the record was read: the way back from a newer one that does not
// work. The policy agreed to it under this name when it came. The caller holds the lock.
func (s *Store) Restore(old *Record) error {
	if err := s.whole(old.Digest); err != nil {
		return fmt.Errorf("go back to %s %s: %w", old.Name, old.Digest, err)
	}
	return s.write(old)
}

// whole finds out whether all of an image is here.
func (s *Store) whole(manifest image.Digest) error {
	img, err := s.Load(manifest)
	if err != nil {
		return err
	}
	for _, d := range img.Config.RootFS.DiffIDs {
		if !s.HasLayer(d) {
			return fmt.Errorf("layer %s is not here any more", d)
		}
	}
	return nil
}
