// Package volume keeps named volumes: directories of the machine that outlive the containers that use them.
//
//	<dir>/                   /var/lib/proa/containers/volumes
//	  lock                   flock: exclusive for whoever makes or removes a volume
//	  <name>/                flock: exclusive for whoever fills it
//	  <name>/volume.json     what was asked for, and whether the image's content has been copied in
//	  <name>/data/           what containers see; or where a device is mounted, in the container's own mount namespace
//	  <name>/fill/           an image's content on its way to data
//	  .new-<name>, .old-<name>-<random>   on their way in and out
//
// A volume appears and vanishes by one rename. Its first user fills it with what the image has at the place where it is mounted, as
// docker does; that is copied beside and becomes the data by one rename too, so that a power cut leaves a volume that will be filled or
// one that is. Names are checked before they become paths. No link in an image or a volume is followed.
package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/durable"
	"github.com/proa-os/proa/runtime/named"
	"github.com/proa-os/proa/runtime/rubbish"
)

// Errors a caller branches on.
var (
	ErrNone   = errors.New("no such volume")
	ErrExists = errors.New("a volume with this name exists")
)

// A Volume is what volume.json holds.
type Volume struct {
	Name      string            `json:"name"`
	Created   time.Time         `json:"created"`
	Labels    map[string]string `json:"labels,omitempty"`
	Anonymous bool              `json:"anonymous,omitempty"` // made by -v PATH, without a name
	UID       *int              `json:"uid,omitempty"`       // owner of the directory; otherwise the image's
	GID       *int              `json:"gid,omitempty"`
	Device    string            `json:"device,omitempty"` // mounted while used: a block device, or with Type nfs and the like its name
	Type      string            `json:"type,omitempty"`
	Options   string            `json:"options,omitempty"` // of mount(8)
	NoCopy    bool              `json:"no_copy,omitempty"` // is not to be filled from an image
	Filled    bool              `json:"filled,omitempty"`  // has been used
}

// A Store is a directory of volumes.
type Store struct {
	named.Records[Volume]
	Warn func(error) // is told what does not keep a change from being made; may be nil
}

// Open opens the store and makes its directory if it is missing.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("open volumes: %w", err)
	}
	return &Store{Records: named.Records[Volume]{Dir: dir, Kind: "volume", File: "/volume.json", None: ErrNone}}, nil
}

// CheckName accepts what is a volume's name, as docker has it.
func CheckName(name string) error { return named.CheckName("volume", name) }

// anonymous is the form of names that nobody has chosen.
var anonymous = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Check finds what no volume can have.
func (v *Volume) Check() error {
	if err := CheckName(v.Name); err != nil {
		return err
	}
	switch {
	case v.Type != "" && v.Device == "":
		return fmt.Errorf("volume %s: type=%s without device=", v.Name, v.Type)
	case v.Device == "" && v.Options != "":
		return fmt.Errorf("volume %s: o=%s without device=", v.Name, v.Options)
	case v.Type == "tmpfs":
		return fmt.Errorf("volume %s: type=tmpfs: every container has a mount of its own: use run --tmpfs", v.Name)
	case v.Bind() && !filepath.IsAbs(v.Device):
		return fmt.Errorf("volume %s: device=%s: want an absolute path", v.Name, v.Device)
	}
	return nil
}

// Bind reports whether the volume is another directory of the machine.
func (v *Volume) Bind() bool {
	return v.Device != "" && (v.Type == "bind" || (v.Type == "" || v.Type == "none") && slices.ContainsFunc(strings.Split(v.Options, ","),
		func(o string) bool { return o == "bind" || o == "rbind" }))
}

// Lock takes the store for a change, and removes what an earlier one left; what cannot be removed is in nobody's way, so that is only warned of. Call
// the returned function to release it.
func (s *Store) Lock() (func(), error) {
	f, err := os.OpenFile(filepath.Join(s.Dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock volumes: %w", err)
	}
	if err := flock(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock volumes: %w", err)
	}
	if err := s.clean(); err != nil && s.Warn != nil {
		s.Warn(fmt.Errorf("what earlier changes of volumes have left stays on the disk: %w", err))
	}
	return func() { f.Close() }, nil
}

func flock(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != unix.EINTR {
			return err
		}
	}
}

func (s *Store) clean() error {
	names, err := os.ReadDir(s.Dir)
	errs := []error{err}
	for _, n := range names {
		if strings.HasPrefix(n.Name(), ".") {
			errs = append(errs, rubbish.Remove(filepath.Join(s.Dir, n.Name())))
		}
	}
	return errors.Join(errs...)
}

// Data is the directory that containers see.
func (s *Store) Data(name string) string { return filepath.Join(s.Dir, name, "data") }

// Create makes an empty volume. The caller holds the lock.
func (s *Store) Create(v *Volume) error {
	if err := v.Check(); err != nil {
		return err
	}
	dir := filepath.Join(s.Dir, ".new-"+v.Name)
	err := rubbish.Remove(dir)
	if err == nil {
		err = os.MkdirAll(filepath.Join(dir, "data"), 0o711)
	}
	if err == nil {
		err = os.Chmod(filepath.Join(dir, "data"), 0o755)
	}
	if err == nil && (v.UID != nil || v.GID != nil) {
		err = os.Chown(filepath.Join(dir, "data"), or(v.UID, 0), or(v.GID, 0))
	}
	if err == nil {
		err = write(dir, v)
	}
	if err == nil {
		err = unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, filepath.Join(s.Dir, v.Name), unix.RENAME_NOREPLACE)
	}
	if err == unix.EEXIST {
		err = errors.Join(ErrExists, rubbish.Remove(dir))
	}
	if err == nil {
		err = syncDir(s.Dir)
	}
	if err != nil {
		return fmt.Errorf("create volume %s: %w", v.Name, err)
	}
	return nil
}

// Remove removes a volume with all that is in it. The caller holds the lock and knows that nobody uses it.
func (s *Store) Remove(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	old, err := os.MkdirTemp(s.Dir, ".old-"+name+"-") // an earlier one of the name may have stayed
	if err == nil {
		err = unix.Rename(filepath.Join(s.Dir, name), old) // replaces an empty directory
	}
	if err == unix.ENOENT {
		return errors.Join(fmt.Errorf("%s: %w", name, ErrNone), os.Remove(old))
	}
	if err == nil {
		err = syncDir(s.Dir)
	}
	if err == nil {
		err = rubbish.Remove(old)
	}
	if err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	return nil
}

func write(dir string, v *Volume) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return durable.WritePath(filepath.Join(dir, "volume.json"), append(b, '\n'), 0o600)
}

func or(p *int, other int) int {
	if p == nil {
		return other
	}
	return *p
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
