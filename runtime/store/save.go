package store

import (
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/proa-os/proa/internal/durable"
)

// SaveContainer replaces what was asked for of a container that is there. The caller holds the lock.
func (s *Store) SaveContainer(c *Container) error {
	if _, err := s.Container(c.Name); err != nil {
		return err
	}
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.WritePath(filepath.Join(s.ContainerDir(c.Name), "container.json"), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("save container %s: %w", c.Name, err)
	}
	return nil
}
