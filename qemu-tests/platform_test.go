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

// TestPlatform has image-builder name the platform and the URL of the config in an image, and nobody else: neither the firmware nor QEMU says anything
// of provisioning. The config adds a kernel argument, so the machine starts again with both. Before, the machine has come up without a platform, and
// said so. Under UEFI it is told at full depth: there TestLine has an image that names its platform, and kernel arguments.
func TestPlatform(t *testing.T) {
	s := begin(t, 2)
	image := s.image("1.0.0", "")
	s.underEach(fullOr(vm.BIOS), func(s *story, firmware vm.Firmware) { s.named(image, firmware) })
}

func (s *story) named(image world.Image, firmware vm.Firmware) {
	t := s.t
	key := must(vm.NewKey())(t)
	config := must(provision.New().Hostname("named").SSHKey("root", key.AuthorizedKey()).KernelArguments("lab.word=kept").JSON())(t)
	pages := filepath.Join(s.dir, "pages")
	check(t, os.Mkdir(pages, 0o755))
	check(t, os.WriteFile(filepath.Join(pages, "config.ign"), config, 0o644))
	web := s.web(pages)
	url := "ignition.config.url=" + web.GuestURL() + "config.ign?rack=*&id=7" // what GRUB's shell could take for its own

	c := vm.Config{Name: "machine", Dir: filepath.Join(s.dir, "machine"), Disk: image.Disk(), Firmware: firmware, Key: key}
	m := s.start(c)
	must(m.WaitConsole(t.Context(), `provision-generator: this machine is not provisioned: .*image-builder platform IMAGE PLATFORM`))(t)
	check(t, m.PowerCut())
	s.platform(m.Disk(), "metal", "--arg", url)
	check(t, m.PowerOn())
	must(m.WaitConsole(t.Context(), ` Command line: .* ignition\.platform\.id=metal .* ignition\.kargs=1 lab\.word=kept`))(t)
	must(m.WaitConsole(t.Context(), `Finished .*ignition\.service`))(t)
	if got, want := strings.Join(web.Requests(), ", "), "GET /config.ign"; !strings.HasPrefix(got, want) {
		t.Errorf("the server was asked for %q, want %q first", got, want)
	}
	if n := m.Boots(); n != 3 {
		t.Errorf("got %d boots, want 3", n)
	}
	if !fullDepth() { // every other first boot goes on as this one does
		m.AssertCleanConsole(t)
		return
	}
	step(t, m, "named", func(t *testing.T) {
		up(t, m)
		got := run(t, m, "cat /proc/cmdline /proc/sys/kernel/hostname; ls /var/lib/ignition/provisioned")
		for _, want := range []string{" ignition.platform.id=metal " + url, " ignition.kargs=1 lab.word=kept", "\nnamed\n", "provisioned"} {
			if !strings.Contains(got, want) {
				t.Errorf("got %q, want %q in it", got, want)
			}
		}
		if n := m.Boots(); n != 3 {
			t.Errorf("got %d boots, want 3", n)
		}
	})
}

// platform runs image-builder platform.
func (s *story) platform(args ...string) {
	s.t.Helper()
	if _, err := s.programs.Run(s.t.Context(), os.Stderr, "image-builder/cmd/image-builder", append([]string{"platform"}, args...)...); err != nil {
		s.t.Fatal(err)
	}
}
