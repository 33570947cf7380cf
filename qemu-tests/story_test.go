package qemutests

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/qemu-tests/provision"
	"github.com/proa-os/proa/qemu-tests/vm"
	"github.com/proa-os/proa/qemu-tests/world"
)

// story is what one story has at hand.
type story struct {
	repo     string // the checkout
	t        *testing.T
	out      string // built releases
	dir      string // this story's machines and files
	programs *world.Programs
	lasts    time.Duration // about, beside two others on two processors
	leave    func()        // the place in the queue
}

// workshop is what all stories share: the checkout, and one set of programs, so that two stories do not build the same at once.
var workshop = sync.OnceValues(func() (story, error) {
	repo, err := world.FindRepository()
	if err != nil {
		return story{}, err
	}
	out := os.Getenv("PROA_OUT")
	if out == "" {
		out = "out"
	}
	if !filepath.IsAbs(out) {
		out = filepath.Join(repo, out)
	}
	bin := filepath.Join(out, "stories", "bin")
	return story{repo: repo, out: out, programs: world.NewPrograms(repo, bin)}, os.MkdirAll(bin, 0o755)
})

// begin skips the story unless stories were asked for, waits for its turn, and empties its folder. Stories of some minutes say how many
// (see queue).
func begin(t *testing.T, minutes ...int) *story {
	t.Helper()
	testenv.Machines(t)
	t.Parallel()
	s, err := workshop()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range minutes {
		s.lasts += time.Duration(m) * time.Minute
	}
	s.leave = turn(t, s.lasts)
	s.t, s.dir = t, filepath.Join(s.out, "stories", t.Name())
	if err := os.RemoveAll(s.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return &s
}

// image builds a release; variant is a way to break it, "" for none.
func (s *story) image(version, variant string) world.Image {
	s.t.Helper()
	image, err := s.programs.Build(s.t.Context(), os.Stderr, filepath.Join(s.out, strings.TrimSuffix(version+"-"+variant, "-")), version, variant)
	if err != nil {
		s.t.Fatal(err)
	}
	return image
}

// web serves a folder to the machines until the story ends.
func (s *story) web(dir string) *world.Web {
	s.t.Helper()
	w, err := world.Serve(dir)
	if err != nil {
		s.t.Fatal(err)
	}
	s.closes(w)
	return w
}

// closes closes a server when the story ends.
func (s *story) closes(server io.Closer) {
	s.t.Cleanup(func() {
		if err := server.Close(); err != nil {
			s.t.Error(err)
		}
	})
}

// documented is an example of docs/provisioning.md, as it stands there.
func (s *story) documented(name string) string {
	s.t.Helper()
	text := string(must(os.ReadFile(filepath.Join(s.repo, "docs", "provisioning.md")))(s.t))
	_, text, found := strings.Cut(text, "\n```yaml "+name+"\n")
	text, _, ended := strings.Cut(text, "\n```\n")
	if !found || !ended {
		s.t.Fatalf("docs/provisioning.md has no %s", name)
	}
	return text + "\n"
}

// machine boots image, provisioned with config and a key for core and root. It runs until the story ends; its logs are
// kept, its disk only if the story fails.
func (s *story) machine(name string, image world.Image, config *provision.Config) *vm.Machine {
	s.t.Helper()
	return s.machineFrom(name, image.Disk(), config)
}

// machineFrom is machine for a disk image; edit may change the hardware.
func (s *story) machineFrom(name, disk string, config *provision.Config, edit ...func(*vm.Config)) *vm.Machine {
	s.t.Helper()
	key, err := vm.NewKey()
	if err != nil {
		s.t.Fatal(err)
	}
	ignition, err := config.SSHKey("core", key.AuthorizedKey()).SSHKey("root", key.AuthorizedKey()).JSON()
	if err != nil {
		s.t.Fatal(err)
	}
	c := vm.Config{Name: name, Dir: filepath.Join(s.dir, name), Disk: disk, Ignition: ignition, Key: key}
	for _, e := range edit {
		e(&c)
	}
	return s.start(c)
}

// start starts a machine with one CPU if c does not say: under TCG a second one costs a third more of the host's for the same boot, in
// interrupts and locks between the two.
func (s *story) start(c vm.Config) *vm.Machine {
	s.t.Helper()
	c.CPUs = max(c.CPUs, 1)
	m, err := vm.Start(s.t.Context(), c)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Logf("machine %s runs under %s: %s", c.Name, m.Accelerator().Use, m.Accelerator().Why)
	s.t.Cleanup(func() {
		if s.t.Failed() {
			s.t.Log(m.Explain())
		}
		s.t.Logf("machine %s: %d boots, %.0f s of CPU", c.Name, m.Boots(), m.CPUTime().Seconds())
		if err := m.Close(); err != nil {
			s.t.Error(err)
		}
		if !s.t.Failed() {
			if err := m.RemoveDisk(); err != nil {
				s.t.Error(err)
			}
		}
	})
	return m
}

// step is one paragraph of a story: later ones make no sense after a failure. It ends with a clean machine.
func step(t *testing.T, m *vm.Machine, name string, do func(t *testing.T), allow ...vm.Allowance) {
	t.Helper()
	ok := t.Run(name, func(t *testing.T) {
		do(t)
		if !t.Failed() {
			m.AssertClean(t, allow...)
		}
	})
	if !ok {
		t.FailNow()
	}
}

// run runs a command as root and returns its output without the last newline.
func run(t *testing.T, m *vm.Machine, command string) string {
	t.Helper()
	out, err := m.Run(t.Context(), "root", command)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(out, "\n")
}

// up waits for the end of the boot and fails if systemd calls it anything but running.
func up(t *testing.T, m *vm.Machine) {
	t.Helper()
	// sshd answers long before the boot is over.
	if out, err := m.Run(t.Context(), "root", "systemctl is-system-running --wait"); err != nil {
		failed, _ := m.Run(context.WithoutCancel(t.Context()), "root", `systemctl list-units --failed --no-legend --plain; systemctl list-jobs --no-legend
for u in $(systemctl list-units --failed --no-legend --plain | cut -d' ' -f1); do journalctl -b -q --no-hostname -n 12 -u "$u"; done`)
		t.Fatalf("got system state %q, want running: %v\n%s", strings.TrimSpace(out), err, failed)
	}
}

// mounts are the machine's mount points with type and options, as in /proc/mounts.
func mounts(t *testing.T, m *vm.Machine) map[string]string {
	t.Helper()
	all := map[string]string{}
	for line := range strings.Lines(run(t, m, "cat /proc/mounts")) {
		if f := strings.Fields(line); len(f) >= 4 {
			all[f[1]] = f[2] + " " + f[3]
		}
	}
	return all
}
