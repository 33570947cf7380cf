package platform

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/proa-os/proa/ignition/config"
	"github.com/proa-os/proa/ignition/medium"
	"github.com/proa-os/proa/ignition/source"
)

// drive is a place on a medium that is attached to the machine, found by its label or by what it holds.
type drive struct {
	labels  []string      // any of them, without regard to case; none: any
	holding string        // a file that must be on it
	optical bool          // only a CD-ROM drive: a data disk of a user may say anything
	device  string        // this one only: /dev/sdb1, as the kernel calls it
	serial  string        // the virtio disk of this serial number; the whole disk is the config
	wait    time.Duration // after that, no drive means no config; 0: the platform always has one, keep waiting
	present bool          // not finding it now is an answer: there is a network to ask
}

// lookAgain is the pause between two looks at the machine's block devices.
const lookAgain = 500 * time.Millisecond

func (d drive) String() string {
	switch {
	case d.serial != "":
		return "disk of serial number " + d.serial
	case d.device != "":
		return d.device
	case len(d.labels) > 0:
		return "drive labelled " + strings.Join(d.labels, " or ")
	}
	return "CD-ROM drive with " + d.holding
}

func (d drive) name(_ *session, path string) string {
	if d.serial != "" {
		return d.String()
	}
	return strings.TrimPrefix(path, "/") + " on the " + d.String()
}

func (d drive) get(ctx context.Context, s *session, path string) ([]byte, error) {
	var over <-chan time.Time
	if d.wait > 0 {
		over = time.After(d.wait)
	}
	loaded := false
	for {
		raw, found, err := d.look(s, path)
		if found {
			return raw, err
		}
		if !loaded && s.Load != nil {
			loaded = true
			s.drivers.Do(func() { s.loadDrivers(ctx) })
			continue
		}
		if s.offline && d.present {
			return nil, source.ErrNeedNetwork
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("find a %s: gave up after %s", d, s.total)
		case <-over:
			return nil, fs.ErrNotExist
		case <-time.After(lookAgain):
		}
	}
}

// look goes through the block devices, by name. What cannot be read is not the drive.
func (d drive) look(s *session, file string) (raw []byte, found bool, err error) {
	names, err := fs.ReadDir(s.Sys.FS(), "class/block")
	if err != nil {
		return nil, false, nil
	}
	sort.Slice(names, func(a, b int) bool { return names[a].Name() < names[b].Name() })
	for _, n := range names {
		if !d.may(s, n.Name()) {
			continue
		}
		f, err := s.Dev.Open(n.Name())
		if err != nil {
			continue
		}
		raw, found, err = d.readFrom(f, file)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if found {
			return raw, true, err
		}
	}
	return nil, false, nil
}

// may says whether sysfs allows that the block device is the drive.
func (d drive) may(s *session, name string) bool {
	attribute := func(file string) string {
		b, err := s.Sys.ReadFile(path.Join("class/block", name, file))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	switch {
	case d.device != "":
		return "/dev/"+name == d.device
	case d.serial != "":
		return attribute("serial") == d.serial
	case d.optical:
		return attribute("device/type") == "5" // SCSI's peripheral device type
	}
	return attribute("size") != "0" // empty loop devices and drives
}

func (d drive) readFrom(f *os.File, file string) (raw []byte, found bool, err error) {
	if d.serial != "" {
		raw, err = limited(f)
		return []byte(strings.TrimRight(string(raw), "\x00")), true, err
	}
	v, err := medium.Open(f)
	if err != nil {
		if d.device != "" {
			return nil, true, fmt.Errorf("read %s: %w", d.device, err)
		}
		return nil, false, nil
	}
	if len(d.labels) > 0 && !slices.ContainsFunc(d.labels, func(l string) bool { return strings.EqualFold(l, v.Label) }) {
		return nil, false, nil
	}
	if d.holding != "" {
		if _, err := v.ReadFile(d.holding, config.MaxSize); errors.Is(err, fs.ErrNotExist) {
			return nil, false, nil
		}
	}
	raw, err = v.ReadFile(file, config.MaxSize)
	return raw, true, err
}

// loadDrivers loads the driver of every device that the kernel has found, as udev does later: it is not running yet. What fails is
// a device without a driver in this image.
func (s *session) loadDrivers(ctx context.Context) {
	seen := map[string]bool{}
	_ = fs.WalkDir(s.Sys.FS(), "devices", func(name string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == "modalias" {
			if b, err := s.Sys.ReadFile(name); err == nil {
				seen[strings.TrimSpace(string(b))] = true
			}
		}
		return nil
	})
	aliases := []string{"sr_mod", "sd_mod"} // the drivers of disks behind their controllers
	for a := range seen {
		if a != "" && !strings.HasPrefix(a, "-") {
			aliases = append(aliases, a)
		}
	}
	sort.Strings(aliases)
	_ = s.Load(ctx, aliases...)
}
