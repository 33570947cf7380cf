package store

import (
	"fmt"
)

// Restore makes a name stand again for the image it stood for when the record was read: the way back from a newer one that does not
// work. The policy agreed to it under this name when it came. The caller holds the lock.
func (s *Store) Restore(old *Record) error {
	img, err := s.Load(old.Digest)
	if err != nil {
		return fmt.Errorf("go back to %s %s: %w", old.Name, old.Digest, err)
	}
	for _, d := range img.Config.RootFS.DiffIDs {
		if !s.HasLayer(d) {
			return fmt.Errorf("go back to %s %s: layer %s is not here any more", old.Name, old.Digest, d)
		}
	}
	return s.write(old)
}
