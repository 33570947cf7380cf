package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/rubbish"
)

// Use makes a volume ready for a container and returns the directory to mount. The calling thread is in a mount namespace of the
// container's: devices are mounted there, and vanish with it. image is the container's root, target where the volume will be.
//
// The store is not locked while a device is mounted, which may be a server that does not answer, nor while a volume is filled.
func (s *Store) Use(name, image, target string, copyUp bool) (string, error) {
	v, err := s.obtain(name)
	if err != nil {
		return "", err
	}
	if v.Bind() {
		return v.Device, nil
	}
	if v.Device != "" {
		if err := mount(v, s.Data(name)); err != nil {
			return "", fmt.Errorf("mount volume %s: %w", name, err)
		}
		return s.Data(name), nil
	}
	if !v.Filled {
		if err := s.fillOnce(name, image, target, copyUp); err != nil {
			return "", fmt.Errorf("fill volume %s: %w", name, err)
		}
	}
	return s.Data(name), nil
}

// obtain returns a volume. If nobody has made it, whoever names it first does.
func (s *Store) obtain(name string) (*Volume, error) {
	unlock, err := s.Lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	v, err := s.Get(name)
	if errors.Is(err, ErrNone) {
		v = &Volume{Name: name, Created: now(), Anonymous: anonymous.MatchString(name)}
		err = s.Create(v)
	}
	return v, err
}

// fillOnce waits for another container that fills the volume just now, and fills it if none has.
func (s *Store) fillOnce(name, image, target string, copyUp bool) error {
	dir, err := os.Open(filepath.Join(s.Dir, name))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := flock(dir); err != nil {
		return err
	}
	v, err := s.Get(name)
	if err != nil || v.Filled {
		return err
	}
	return s.fill(v, image, target, copyUp && !v.NoCopy)
}

// fill copies what the image has at target into a volume that nobody has used. The caller has locked the volume's directory.
func (s *Store) fill(v *Volume, image, target string, copyUp bool) error {
	dir := filepath.Join(s.Dir, v.Name)
	fresh := filepath.Join(dir, "fill")
	if err := rubbish.Remove(fresh); err != nil {
		return err
	}
	from, err := inRoot(image, target)
	if copyUp && err == nil && empty(s.Data(v.Name)) {
		defer from.Close()
		if err := os.Mkdir(fresh, 0o700); err != nil {
			return err
		}
		to, err := os.Open(fresh)
		if err != nil {
			return err
		}
		defer to.Close()
		if err := copyTree(from, to); err != nil {
			return err
		}
		if v.UID != nil || v.GID != nil {
			if err := to.Chown(or(v.UID, 0), or(v.GID, 0)); err != nil {
				return err
			}
		}
		if err := unix.Syncfs(int(to.Fd())); err != nil {
			return err
		}
		if err := unix.Rename(fresh, s.Data(v.Name)); err != nil { // replaces an empty directory
			return err
		}
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
		return err
	}
	v.Filled = true
	return write(dir, v)
}

// inRoot opens a directory below root, in which links lead no further than to root itself.
func inRoot(root, name string) (*os.File, error) {
	r, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(r)
	fd, err := unix.Openat2(r, strings.TrimPrefix(name, "/"), &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func empty(dir string) bool {
	f, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer f.Close()
	names, _ := f.Readdirnames(1)
	return len(names) == 0
}

// mount mounts a device. Devices and programs of other users in it do not work unless the options say so.
func mount(v *Volume, target string) error {
	flags := uintptr(unix.MS_NODEV | unix.MS_NOSUID)
	var data []string
	known := map[string]uintptr{"ro": unix.MS_RDONLY, "noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME, "strictatime": unix.MS_STRICTATIME,
		"noexec": unix.MS_NOEXEC, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "sync": unix.MS_SYNCHRONOUS, "dirsync": unix.MS_DIRSYNC, "lazytime": unix.MS_LAZYTIME}
	for o := range strings.SplitSeq(v.Options, ",") {
		switch o {
		case "", "rw", "defaults", "exec", "async", "auto", "noauto", "nofail", "_netdev":
		case "suid":
			flags &^= unix.MS_NOSUID
		default:
			if f, ok := known[o]; ok {
				flags |= f
			} else {
				data = append(data, o)
			}
		}
	}
	kind := v.Type
	if kind == "" {
		return fmt.Errorf("%s: type= is missing: want the file system, such as ext4", v.Device)
	}
	if err := unix.Mount(v.Device, target, kind, flags, strings.Join(data, ",")); err != nil {
		return fmt.Errorf("%s (%s, %s): %w (see the kernel log)", v.Device, kind, v.Options, err)
	}
	return nil
}
