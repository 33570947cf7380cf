package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/durable"
)

// ResetRequest is the file in state by which a machine asks to be as before its first boot, but for some paths (`ignition reset`): a
// line "reset 1", then one path a line, relative to state. The next boot carries it out before anything uses state.
const ResetRequest = "lib/ignition/reset"

const resetHeader = "reset 1"

// Forget carries out a request, if there is one, and says whether there was. The request goes last: a power cut in between leaves it, and the
// next boot goes on. A kept path keeps the directories above it, with their owners and modes.
func Forget(state *os.Root) (bool, error) {
	b, err := state.ReadFile(ResetRequest)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read request to forget state: %w", err)
	}
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	if lines[0] != resetHeader {
		return false, fmt.Errorf("read request to forget state: %s begins with %.40q, expected %q; remove the file to go on with state as it is", ResetRequest, lines[0], resetHeader)
	}
	k := kept{paths: map[string]bool{"lost+found": true}, above: map[string]bool{}}
	for i, p := range append(lines[1:], ResetRequest) {
		if p = path.Clean(p); path.IsAbs(p) {
			return false, fmt.Errorf("read request to forget state: line %d of %s is %.200q, expected a path relative to state; nothing was forgotten", i+2, ResetRequest, p)
		}
		k.add(p)
	}
	if err := k.forget(state, "."); err != nil {
		return true, fmt.Errorf("forget state: %w", err)
	}
	if err := syncDir(state, "."); err != nil {
		return true, fmt.Errorf("forget state: %w", err)
	}
	if err := state.Remove(ResetRequest); err != nil {
		return true, fmt.Errorf("forget state: %w", err)
	}
	return true, syncDir(state, path.Dir(ResetRequest))
}

// Request asks, durably, for the next boot with that state to forget all of it.
func Request(state *os.Root) error {
	if err := state.MkdirAll(path.Dir(ResetRequest), 0o755); err != nil {
		return fmt.Errorf("write request to forget state: %w", err)
	}
	if err := durable.WriteFile(state, ResetRequest, []byte(resetHeader+"\n"), 0o600); err != nil {
		return fmt.Errorf("write request to forget state: %w", err)
	}
	return nil
}

// kept is what stays: paths with all below them, and the directories above these.
type kept struct{ paths, above map[string]bool }

func (k kept) add(p string) {
	k.paths[p] = true
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		k.above[dir] = true
	}
}

func (k kept) forget(state *os.Root, dir string) error {
	d, err := state.Open(dir)
	if err != nil {
		return err
	}
	entries, err := d.ReadDir(-1)
	if err := errors.Join(err, d.Close()); err != nil {
		return err
	}
	for _, e := range entries {
		p := path.Join(dir, e.Name())
		switch {
		case k.paths[p]:
		case k.above[p] && e.IsDir():
			err = k.forget(state, p)
		default:
			err = state.RemoveAll(p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func syncDir(state *os.Root, name string) error {
	d, err := state.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}
