package qemutests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/qemu-tests/provision"
	"github.com/proa-os/proa/qemu-tests/vm"
	"github.com/proa-os/proa/qemu-tests/world"
)

// TestFlippedBit changes one bit of the service manager on the disk: it is never read as data, the machine stops there.
func TestFlippedBit(t *testing.T) {
	s := begin(t)
	image := s.image("1.0.0", "")
	s.damage(image, func(d *world.Disk) error { return d.FlipBit("root-a", []byte("Detected architecture")) })
	m := s.bootDamaged("flipped")
	if _, err := m.WaitConsole(t.Context(), `device-mapper: verity: .*data block \d+ is corrupted`); err != nil {
		t.Fatal(err)
	}
	if _, err := m.WaitConsole(t.Context(), `Kernel panic - not syncing: dm-verity device corrupted`); err != nil {
		t.Fatal(err)
	}
	if err := m.WaitBoot(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
}

// TestMalformedConfig gives a machine a config with a misspelt key: it says so on its console and starts nothing else.
func TestMalformedConfig(t *testing.T) {
	s := begin(t)
	image := s.image("1.0.0", "")
	m := s.start(vm.Config{
		Name: "malformed", Dir: filepath.Join(s.dir, "malformed"), Disk: image.Disk(),
		Ignition: []byte("{\"ignition\":{\"version\":\"3.4.0\"},\n\"storage\":{\"filez\":[{\"path\":\"/etc/x\"}]}}\n"),
	})
	for _, want := range []string{"THIS MACHINE COULD NOT BE PROVISIONED", `path: +storage\.filez`, `line: +2\b`} {
		if _, err := m.WaitConsole(t.Context(), want); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.WaitConsole(t.Context(), `Finished .*Could Not Be Provisioned`); err != nil {
		t.Fatal(err)
	}
	for _, l := range m.Console().Lines(0) {
		for _, unit := range []string{"ssh.service", "getty", "multi-user.target"} {
			if strings.Contains(l.Text, unit) && strings.Contains(l.Text, "OK") {
				t.Errorf("started although not provisioned: %s", l.Text)
			}
		}
	}
}

// damaged is where damage leaves the disk and bootDamaged takes it.
func (s *story) damaged() string { return filepath.Join(s.dir, "damaged.img") }

// damage copies the image's disk and lets change work on it.
func (s *story) damage(image world.Image, change func(*world.Disk) error) {
	s.t.Helper()
	if err := vm.CopySparse(s.damaged(), image.Disk(), 0); err != nil {
		s.t.Fatal(err)
	}
	d, err := world.OpenDisk(s.damaged())
	if err != nil {
		s.t.Fatal(err)
	}
	defer d.Close()
	if err := change(d); err != nil {
		s.t.Fatal(err)
	}
}

func (s *story) bootDamaged(name string) *vm.Machine {
	s.t.Helper()
	m := s.machineFrom(name, s.damaged(), provision.New())
	if err := os.Remove(s.damaged()); err != nil {
		s.t.Fatal(err)
	}
	return m
}
