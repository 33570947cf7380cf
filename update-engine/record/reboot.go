package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/proa-os/proa/internal/durable"
	"github.com/proa-os/proa/update-engine/reboot"
)

const (
	rebootFile = "reboot.json"
	leftFile   = "soft-left"
)

// Reboots returns what is remembered about reboots; the zero value if there is nothing that can be read: a soft try that is forgotten is
// never armed, so the next start of the kernel goes back.
func (s *Store) Reboots() (reboot.Memory, error) {
	var m reboot.Memory
	b, err := s.read(rebootFile)
	if err != nil {
		return m, err
	}
	if json.Unmarshal(b, &m) != nil {
		return reboot.Memory{}, nil
	}
	return m, nil
}

// ChangeReboots changes what is remembered, unless change changes nothing.
func (s *Store) ChangeReboots(change func(*reboot.Memory)) error {
	return s.alone(func() error {
		m, err := s.Reboots()
		if err != nil {
			return err
		}
		before, err := json.Marshal(m)
		if err != nil {
			return fmt.Errorf("write %s: %w", rebootFile, err)
		}
		change(&m)
		if after, err := json.Marshal(m); err == nil && string(before) == string(after) {
			return nil
		}
		return s.write(rebootFile, m)
	})
}

// LeftFile is the mark by which init/nextroot says, as its last step, that a soft try has begun.
func (s *Store) LeftFile() string { return filepath.Join(s.dir, leftFile) }

// Left reports whether the mark is there.
func (s *Store) Left() (bool, error) {
	_, err := os.Lstat(s.LeftFile())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// ForgetLeft removes the mark, durably: with it, the next soft reboot that a power cut forestalls would look like one that failed.
func (s *Store) ForgetLeft() error {
	left, err := s.Left()
	if err != nil || !left {
		return err
	}
	return s.change(func(d durable.Directory) error { return durable.Delete(d, leftFile) })
}
