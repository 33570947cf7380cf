package store

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/runtime/image"
	"github.com/proa-os/proa/runtime/rubbish"
)

// claimFile lists the diffIDs that a pull needs, one a line, in its directory in tmp.
const claimFile = "claim"

// claim makes a directory in tmp that is held until release, and in it the names of the layers that are not to be collected
// meanwhile. It takes the lock: what is in the store at this moment stays.
func (s *Store) claim(img *image.Image) (dir string, release func(), err error) {
	unlock, err := s.Lock()
	if err != nil {
		return "", nil, err
	}
	defer unlock()
	if dir, err = os.MkdirTemp(s.path("tmp"), "import-"); err != nil {
		return "", nil, err
	}
	var text strings.Builder
	for _, d := range img.Config.RootFS.DiffIDs {
		fmt.Fprintln(&text, d.Hex())
	}
	f, err := hold(dir)
	if err != nil {
		return "", nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, claimFile), []byte(text.String()), 0o600); err != nil {
		return "", nil, errors.Join(err, f.Close(), rubbish.Remove(dir))
	}
	return dir, func() { rubbish.Remove(dir); f.Close() }, nil
}

// Scratch makes an empty directory that is held until release.
func (s *Store) Scratch() (dir *os.File, release func(), err error) {
	unlock, err := s.Lock()
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	name, err := os.MkdirTemp(s.path("tmp"), "scratch-")
	if err != nil {
		return nil, nil, err
	}
	f, err := hold(name)
	if err != nil {
		return nil, nil, err
	}
	return f, func() { rubbish.Remove(name); f.Close() }, nil
}

// hold opens a directory and locks it, which tells others that its maker lives. On failure the directory is removed.
func hold(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, errors.Join(err, rubbish.Remove(dir))
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close(), rubbish.Remove(dir))
	}
	return f, nil
}

// HoldContainer says that somebody is about to start a container, or waits for it, until release or the end of this process.
func (s *Store) HoldContainer(name string) (release func(), err error) {
	f, err := os.Open(s.ContainerDir(name))
	if err != nil {
		return nil, fmt.Errorf("hold container %s: %w", name, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH); err != nil {
		f.Close()
		return nil, fmt.Errorf("hold container %s: %w", name, err)
	}
	return func() { f.Close() }, nil
}

// SeizeContainer takes a container that nobody holds, until release; ok is false for one that somebody does, or that has gone.
func (s *Store) SeizeContainer(name string) (release func(), ok bool, err error) {
	unlock, err := s.Lock() // under which a container is made and held at once
	if err != nil {
		return nil, false, err
	}
	defer unlock()
	f, err := os.Open(s.ContainerDir(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("seize container %s: %w", name, err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return func() { f.Close() }, true, nil
	}
	f.Close()
	if err == unix.EWOULDBLOCK {
		return nil, false, nil
	}
	return nil, false, fmt.Errorf("seize container %s: %w", name, err)
}

// AwaitContainer takes a container as soon as nobody holds it, until release. The error is ErrNoContainer if it is no more, or another
// instance.
func (s *Store) AwaitContainer(name, instance string) (release func(), err error) {
	f, err := os.Open(s.ContainerDir(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("await container %s: %w", name, ErrNoContainer)
	}
	if err != nil {
		return nil, fmt.Errorf("await container %s: %w", name, err)
	}
	if err = s.isInstance(name, instance); err == nil {
		for err = unix.EINTR; err == unix.EINTR; {
			err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		}
	}
	if err == nil {
		err = s.isInstance(name, instance)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("await container %s: %w", name, err)
	}
	return func() { f.Close() }, nil
}

// HoldStart keeps a container's record and name as they are while somebody starts it, until release. Who removes it just now is waited
// for; ErrNoContainer says that it has gone, or is another instance.
func (s *Store) HoldStart(c *Container) (release func(), err error) {
	f, err := s.startLock(c, unix.LOCK_SH)
	if err != nil {
		return nil, fmt.Errorf("start container %s: %w", c.Name, err)
	}
	return func() { f.Close() }, nil
}

// SeizeStart keeps others from starting a container that is about to be removed or renamed, until release; ok is false while somebody
// starts it.
func (s *Store) SeizeStart(c *Container) (release func(), ok bool, err error) {
	f, err := s.startLock(c, unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case err == nil:
		return func() { f.Close() }, true, nil
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil, false, nil
	}
	return nil, false, fmt.Errorf("seize container %s: %w", c.Name, err)
}

// startLock locks the directory that a container's root is mounted on: its own is locked as long as somebody waits for its end.
func (s *Store) startLock(c *Container, how int) (*os.File, error) {
	name := filepath.Join(s.ContainerDir(c.Name), "rootfs")
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoContainer
	}
	if err != nil {
		return nil, err
	}
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Flock(int(f.Fd()), how)
	}
	if err == nil {
		err = s.isInstance(c.Name, c.Instance)
	}
	if err == nil && !named(f, name) {
		err = ErrNoContainer // it went while this waited, and there is another one of its name
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (s *Store) isInstance(name, instance string) error {
	c, err := s.Container(name)
	if err == nil && c.Instance != instance {
		return ErrNoContainer
	}
	return err
}

// claimed adds the layers of all pulls under way. The caller holds the lock, which has removed the claims of dead ones.
func (s *Store) claimed(keep map[string]bool) error {
	dirs, err := os.ReadDir(s.path("tmp"))
	if err != nil {
		return err
	}
	for _, d := range dirs {
		f, err := os.Open(s.path("tmp", d.Name(), claimFile))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for sc := bufio.NewScanner(f); sc.Scan(); {
			if d, err := digest.Parse(sc.Text()); err == nil {
				keep[d.String()] = true
			}
		}
		f.Close()
	}
	return nil
}
