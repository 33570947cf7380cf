package boot

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/proa-os/proa/internal/disk/disktest"
)

// A disk that is slow to appear is waited for, with one line about it.
func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		image, root, offset := disktest.RootImage(t, 200, 1)
		w := disktest.New(t)
		var notes []string
		f := finder{scanner: w.Scanner(), root: root, hashOffset: offset, drivers: func() {}, note: func(format string, args ...any) {
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
		f := finder{scanner: w.Scanner(), root: root, hashOffset: offset, drivers: func() {}, note: func(string, ...any) {}}
		_, err := f.wait()
		if err == nil || !strings.Contains(err.Error(), "not there after 30 seconds") || !strings.Contains(err.Error(), "vda: root-a: holds another root image") {
			t.Errorf("got %v", err)
		}
		if d := time.Since(start); d < diskTimeout || d > diskTimeout+time.Second {
			t.Errorf("gave up after %v", d)
		}
	})
}
