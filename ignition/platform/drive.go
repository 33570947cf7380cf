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
	longest time.Duration // the wait begins anew with each device that appears, up to this; 0: it does not
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

// get looks for the drive until it is there, and loads the drivers of devices that appear meanwhile: behind a hub there is a stick, and
// behind that a disk.
func (d drive) get(ctx context.Context, s *session, path string) ([]byte, error) {
	start, loads := time.Now(), 0
	until := start.Add(d.wait)
	if s.inVain(d) {
		until = start
	}
	for {
		raw, found, err := d.look(s, path)
		if found {
			return raw, err
		}
		if n := s.loadDrivers(ctx); n > loads {
			if loads = n; d.longest > 0 && !s.inVain(d) {
				until = time.Now().Add(d.wait)
			}
			continue
		}
		switch {
		case s.offline && d.present:
			return nil, source.ErrNeedNetwork
		case d.wait > 0 && !time.Now().Before(until), d.longest > 0 && time.Since(start) >= d.longest:
			s.gaveUp(d)
			return nil, fs.ErrNotExist
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("find a %s: gave up after %s", d, s.total)
		case <-time.After(lookAgain):
		}
	}
}

// inVain reports whether the drive was waited for already: for its next item, nobody waits again.
func (s *session) inVain(d drive) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.missing[d.String()]
}

func (s *session) gaveUp(d drive) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.missing[d.String()] = true
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

// loadDrivers loads the driver of every device that the kernel has found since the last call, as udev does later: it is not running
// yet. What fails is a device without a driver in this image. It returns how often there were any.
func (s *session) loadDrivers(ctx context.Context) int {
	if s.Load == nil {
		return 0
	}
	s.loading.Lock()
	defer s.loading.Unlock()
	var aliases []string
	if s.loads == 0 {
		aliases = []string{"sd_mod", "sr_mod"} // the drivers of disks behind their controllers
	}
	_ = fs.WalkDir(s.Sys.FS(), "devices", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.Name() != "modalias" {
			return nil // a device may go while it is looked at
		}
		b, err := s.Sys.ReadFile(name)
		if a := strings.TrimSpace(string(b)); err == nil && a != "" && !strings.HasPrefix(a, "-") && !s.loaded[a] {
			s.loaded[a] = true
			aliases = append(aliases, a)
		}
		return nil
	})
	if len(aliases) == 0 {
		return s.loads
	}
	sort.Strings(aliases)
	_ = s.Load(ctx, aliases...)
	s.loads++
	return s.loads
}
