package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/proa-os/proa/internal/durable"
)

// An Exit is what exit.json holds: how a container's last run ended.
type Exit struct {
	Code     int       `json:"code"`             // of the workload; 128+n for signal n
	Signal   string    `json:"signal,omitempty"` // that ended it: KILL
	OOM      bool      `json:"oom_killed"`       // the kernel killed a process of it for want of memory
	Result   string    `json:"result"`           // systemd's word: success, exit-code, signal, timeout ...
	Started  time.Time `json:"started,omitzero"` // zero if it never ran
	Finished time.Time `json:"finished"`
}

// String says it in a few words: "exited 137 (out of memory)".
func (x *Exit) String() string {
	switch {
	case x.Started.IsZero():
		return "did not start"
	case x.OOM && x.Code == 137:
		return "exited 137 (out of memory)"
	case x.Signal != "":
		return fmt.Sprintf("exited %d (signal %s)", x.Code, x.Signal)
	}
	return fmt.Sprintf("exited %d", x.Code)
}

// SetExit stores how a container ended: of one for one run, as AddContainer stores that.
func (s *Store) SetExit(c *Container, x *Exit) error {
	if err := CheckName(c.Name); err != nil {
		return err
	}
	b, err := json.Marshal(x)
	if err != nil {
		return err
	}
	file := filepath.Join(s.ContainerDir(c.Name), "exit.json")
	if !c.Remove {
		return durable.WritePath(file, append(b, '\n'), 0o600)
	}
	if err := os.WriteFile(file+".new", append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("store exit of %s: %w", c.Name, err)
	}
	return os.Rename(file+".new", file)
}

// Exit returns how a container's last run ended, nil if it has never done so.
func (s *Store) Exit(name string) (*Exit, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(s.ContainerDir(name), "exit.json"))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) == 0 { // empty: a power cut, see AddContainer
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	x := new(Exit)
	if err := json.Unmarshal(b, x); err != nil {
		return nil, fmt.Errorf("read exit of %s: %w", name, err)
	}
	return x, nil
}
