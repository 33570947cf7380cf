package boot

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/proa-os/proa/internal/disk"
	"github.com/proa-os/proa/internal/disk/disktest"
)

func noDrivers() bool { return false }

// A disk that is slow to appear is waited for, with one line about it.
func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		image, root, offset := disktest.RootImage(t, 200, 1)
		w := disktest.New(t)
		var notes []string
		f := finder{scanner: w.Scanner(), root: root, hashOffset: offset, drivers: noDrivers, note: func(format string, args ...any) {
			notes = append(notes, fmt.Sprintf(format, args...))
		}}
		file := disktest.Image(t, 0, image, nil)
		go func() {
			time.Sleep(20 * time.Second)
			w.Attach("sda", file)
		}()
		start := time.Now()
		layout, err := f.wait()
		if err != nil {
			t.Fatal(err)
		}
		if layout.Active.Path != "/dev/sda3" || time.Since(start) < 20*time.Second || time.Since(start) > 21*time.Second {
			t.Errorf("found %s after %v", layout.Active.Path, time.Since(start))
		}
		if len(notes) != 1 || !strings.Contains(notes[0], "no disk at all") {
			t.Errorf("notes: %q", notes)
		}
	})
}

func TestWaitInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, root, offset := disktest.RootImage(t, 200, 1)
		other, _, _ := disktest.RootImage(t, 200, 2)
		w := disktest.New(t)
		w.Attach("vda", disktest.Image(t, 0, other, nil))
		start := time.Now()
		f := finder{scanner: w.Scanner(), root: root, hashOffset: offset, drivers: noDrivers, note: func(string, ...any) {}}
		_, err := f.wait()
		if err == nil || !strings.Contains(err.Error(), "not there after 30 seconds") || !strings.Contains(err.Error(), "vda: root-a: holds another root image") {
			t.Errorf("got %v", err)
		}
		if d := time.Since(start); d < diskTimeout || d > diskTimeout+time.Second {
			t.Errorf("gave up after %v", d)
		}
	})
}

// A slot on USB is taken after a short look for another disk, which is preferred if it comes.
func TestWaitBesideUSB(t *testing.T) {
	for name, c := range map[string]struct {
		later time.Duration // when the machine's own disk appears; never if zero
		disk  string
		took  time.Duration
	}{
		"alone":  {0, "sda", usbPatience},
		"beside": {usbPatience / 2, "sdb", usbPatience / 2},
		"late":   {usbPatience * 2, "sda", usbPatience},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				image, root, offset := disktest.RootImage(t, 200, 1)
				w := disktest.New(t)
				var notes []string
				f := finder{scanner: w.Scanner(), root: root, hashOffset: offset, drivers: noDrivers, note: func(format string, args ...any) {
					notes = append(notes, fmt.Sprintf(format, args...))
				}}
				w.AttachUSB("sda", disktest.Image(t, 0, image, nil))
				if c.later > 0 {
					file := disktest.Image(t, 0, image, nil)
					time.AfterFunc(c.later, func() { w.Attach("sdb", file) })
				}
				start := time.Now()
				layout, err := f.wait()
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); layout.Disk.Name != c.disk || took < c.took || took > c.took+4*diskPoll {
					t.Errorf("found %s after %v, want %s after %v", layout.Disk.Name, took, c.disk, c.took)
				}
				if len(notes) != 1 || !strings.Contains(notes[0], "/dev/sda is on USB: looking 3 seconds") {
					t.Errorf("notes: %q", notes)
				}
			})
		})
	}
}

// Neither a driver nor a look that takes longer than the whole time leaves none for the disk.
func TestWaitSlowly(t *testing.T) {
	const slow, later = diskTimeout + 10*time.Second, 5 * time.Second
	for name, change := range map[string]func(f *finder, scanner *disk.Scanner){
		"driver": func(f *finder, _ *disk.Scanner) {
			loaded := false
			f.drivers = func() bool {
				if loaded {
					return false
				}
				loaded = true
				time.Sleep(slow)
				return true
			}
		},
		"look": func(_ *finder, scanner *disk.Scanner) {
			open := scanner.Open
			scanner.Open = func(path string) (disk.Device, error) {
				if path == "/dev/sda" {
					time.Sleep(slow + later) // until after the disk came
					return nil, errors.New("input/output error")
				}
				return open(path)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				image, root, offset := disktest.RootImage(t, 200, 1)
				w := disktest.New(t)
				w.Attach("sda", disktest.Image(t, 0, nil, nil))
				scanner := w.Scanner()
				f := finder{scanner: scanner, root: root, hashOffset: offset, drivers: noDrivers, note: func(string, ...any) {}}
				change(&f, scanner)
				file := disktest.Image(t, 0, image, nil)
				time.AfterFunc(slow+later-time.Second, func() { w.Attach("sdb", file) })
				layout, err := f.wait()
				if err != nil {
					t.Fatal(err)
				}
				if layout.Disk.Name != "sdb" {
					t.Errorf("found %s", layout.Disk.Name)
				}
			})
		})
	}
}
