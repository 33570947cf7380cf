// Package demo is the story that `make demo` tells: one line through everything, on one machine, with its versions, sizes and
// seconds. It does what the story TestLine proves, with the same world, and checks only what it needs to go on.
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/proa-os/proa/qemu-tests/provision"
	"github.com/proa-os/proa/qemu-tests/vm"
	"github.com/proa-os/proa/qemu-tests/world"
)

// Options of Run.
type Options struct {
	Out      string   // directory of what is built
	Terminal *os.File // where the story goes
	Verbose  bool     // print progress and console in full
}

// story is what the chapters share.
type story struct {
	*teller
	ctx      context.Context
	o        Options
	dir      string
	programs *world.Programs
	desk     *world.Desk
	web      *world.Web
	registry *world.Registry
	machine  *vm.Machine
	sizes    []string // lines of the table at the end
}

// Run tells the story.
func Run(ctx context.Context, o Options) error {
	start := time.Now()
	s := &story{teller: newTeller(o.Terminal), ctx: ctx, o: o}
	defer s.close()
	for _, chapter := range []func() error{s.build, s.boot, s.container, s.update, s.comeBack, s.end} {
		if err := chapter(); err != nil {
			if s.machine != nil {
				err = fmt.Errorf("%w\n%s", err, s.machine.Explain())
			}
			return err
		}
	}
	fmt.Fprintf(s.out, "\nThe whole story took %.0f s. The machine's console is in %s.\n",
		time.Since(start).Seconds(), filepath.Join(s.dir, "machine", "console.log"))
	return nil
}

func (s *story) close() {
	if s.machine != nil {
		s.machine.Close()
		s.machine.RemoveDisk()
	}
	if s.web != nil {
		s.web.Close()
	}
	if s.registry != nil {
		s.registry.Close()
	}
}

// progress is where programs say what they do.
func (s *story) progress() io.Writer {
	if s.o.Verbose {
		return io.MultiWriter(s.teller, os.Stderr)
	}
	return s.teller
}

func (s *story) image(version, variant string) (world.Image, error) {
	return s.programs.Build(s.ctx, s.progress(), filepath.Join(s.o.Out, strings.TrimSuffix(version+"-"+variant, "-")), version, variant)
}

const mib = 1 << 20

func describe(i world.Image) string {
	r := i.Release
	return fmt.Sprintf("%s: %d Debian packages, root image %.0f MiB, boot program %.0f MiB",
		r.Version, len(r.Packages), float64(r.Root.Size)/mib, float64(r.Boot.Size)/mib)
}

// build makes the image, the keys and the servers.
func (s *story) build() error {
	repo, err := world.FindRepository()
	if err != nil {
		return err
	}
	if s.o.Out, err = filepath.Abs(s.o.Out); err != nil {
		return err
	}
	s.dir = filepath.Join(s.o.Out, "demo")
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("empty %s: %w", s.dir, err)
	}
	if err := os.MkdirAll(filepath.Join(s.dir, "bin"), 0o755); err != nil {
		return err
	}
	s.programs = world.NewPrograms(repo, filepath.Join(s.dir, "bin"))
	s.chapter("1. Build: pinned Debian packages become one read-only image, without root")
	if err := s.step("build 1.0.0", func() (string, error) {
		i, err := s.image("1.0.0", "")
		if err != nil {
			return "", err
		}
		return describe(i) + "\nroot hash " + i.Release.Root.RootHash.String(), nil
	}); err != nil {
		return err
	}
	return s.step("open the release desk", func() (string, error) {
		if s.desk, err = world.NewDesk(s.ctx, s.programs, s.dir); err != nil {
			return "", err
		}
		if s.web, err = world.Serve(s.desk.Repository); err != nil {
			return "", err
		}
		if s.registry, err = world.StartRegistry(); err != nil {
			return "", err
		}
		if err := s.registry.PushHello("demo/hello:1", "hello from a container\n"); err != nil {
			return "", err
		}
		return "keys made, an empty TUF repository is served, a registry has demo/hello:1", nil
	})
}

// boot starts the machine, which provisions itself.
func (s *story) boot() error {
	s.chapter("2. Boot and provision: firmware, systemd-boot, /init, dm-verity, systemd; an Ignition config describes the machine")
	key, err := vm.NewKey()
	if err != nil {
		return err
	}
	root, err := s.desk.Root()
	if err != nil {
		return err
	}
	config, err := provision.New().Hostname("demo").SSHKey("core", key.AuthorizedKey()).SSHKey("root", key.AuthorizedKey()).
		File("/etc/proa/update/root.json", 0o644, string(root)).
		File("/etc/proa/update/config.json", 0o644, fmt.Sprintf(`{"server":%q,"channel":"stable","auto":false,"health_deadline_seconds":90,"reboot":{"mode":"full"}}`+"\n", s.web.GuestURL())).JSON()
	if err != nil {
		return err
	}
	return s.step("boot 1.0.0", func() (string, error) {
		m, err := vm.Start(s.ctx, vm.Config{Name: "demo", Dir: filepath.Join(s.dir, "machine"), Disk: filepath.Join(s.o.Out, "1.0.0", "disk.img"), Ignition: config, Key: key, Ports: []int{8080}})
		if err != nil {
			return "", err
		}
		s.mu.Lock()
		s.machine = m
		s.mu.Unlock()
		if s.o.Verbose {
			m.Console().Tap(os.Stderr)
		}
		if err := s.up(); err != nil {
			return "", err
		}
		out, err := s.run("hostname; systemd-analyze | head -n 1; free -m | awk '/^Mem/{print $3 \" MiB of memory used, \" $2 \" MiB there\"}'; findmnt -no SOURCE,FSTYPE / 2>/dev/null || awk '$2==\"/\"{print $1, $3, \"is /\"}' /proc/mounts")
		return fmt.Sprintf("it runs under %s\n%s", m.Accelerator().Use, out), err
	})
}

// up waits until the machine has judged its boot.
func (s *story) up() error {
	out, err := s.run("systemctl is-system-running --wait")
	if err != nil {
		return fmt.Errorf("the system is %q: %w", out, err)
	}
	return nil
}

func (s *story) run(command string) (string, error) {
	out, err := s.machine.Run(s.ctx, "root", command)
	return strings.TrimSpace(out), err
}

func (s *story) container() error {
	s.chapter("3. Run a container: pulled by an unprivileged user, a systemd unit without a daemon behind it")
	image := s.registry.GuestHost() + "/demo/hello:1"
	if err := s.step("pull and run", func() (string, error) {
		if _, err := s.run("containerctl pull --tls-verify=false " + image); err != nil {
			return "", err
		}
		if _, err := s.run("containerctl run -d --name hello --network host --health-cmd 'wget -qO- http://127.0.0.1:8080/' " + image); err != nil {
			return "", err
		}
		return s.answer()
	}); err != nil {
		return err
	}
	return s.step("reboot", func() (string, error) {
		if err := s.machine.Reboot(s.ctx); err != nil {
			return "", err
		}
		if err := s.up(); err != nil {
			return "", err
		}
		out, err := s.answer()
		return "after a reboot, by itself: " + out, err
	})
}

func (s *story) answer() (string, error) {
	out, err := s.run("for i in $(seq 60); do wget -qO- http://127.0.0.1:8080/ && break; sleep 1; done; systemctl is-active proa-hello.service")
	if err == nil && out != "hello from a container\nactive" {
		err = fmt.Errorf("the container does not answer: %q", out)
	}
	return "proa-hello.service says: hello from a container", err
}

// wrong is the release whose root hash is wrong.
const wrong = "1.0.4"

// publish builds a release and gives it to the channel.
func (s *story) publish(version, variant string) error {
	return s.step("build and sign "+version, func() (string, error) {
		i, err := s.image(version, variant)
		if err != nil {
			return "", err
		}
		if version == wrong {
			if i, err = world.WrongRootHash(i, filepath.Join(s.dir, version)); err != nil {
				return "", err
			}
			return version + " is signed and published, although its root hash is wrong", s.desk.PublishUnproven(s.ctx, i, "stable")
		}
		if err := s.desk.Publish(s.ctx, i, "stable"); err != nil {
			return "", err
		}
		payloads, err := s.payloads(version)
		if err != nil {
			return "", err
		}
		s.sizes = append(s.sizes, fmt.Sprintf("%-7s root image %4.0f MiB   boot program %3.0f MiB   %s",
			version, float64(i.Release.Root.Size)/mib, float64(i.Release.Boot.Size)/mib, payloads))
		return version + " is signed and published: " + payloads, nil
	})
}

// payloads says how large the full payload of a version is, and the deltas.
func (s *story) payloads(version string) (string, error) {
	files, err := filepath.Glob(filepath.Join(s.desk.Repository, "targets", "releases", version, "*", "*.payload"))
	if err != nil || len(files) == 0 {
		return "", fmt.Errorf("find the payloads of %s: %d files, %w", version, len(files), err)
	}
	var all []string
	for _, f := range files {
		fi, err := os.Stat(f)
		if err != nil {
			return "", err
		}
		_, name, _ := strings.Cut(strings.TrimSuffix(filepath.Base(f), ".payload"), ".") // behind its hash
		if from, ok := strings.CutPrefix(name, "from-"); ok {
			name = "delta from " + from
		} else {
			name = "full payload"
		}
		all = append(all, fmt.Sprintf("%s %.3f MiB", name, float64(fi.Size())/mib))
	}
	slices.Sort(all)
	return strings.Join(all, ", "), nil
}

// apply has the machine install what the channel offers and waits for its reboot.
func (s *story) apply() error {
	n := s.machine.Boots()
	_, err := s.run("updatectl apply --quiet 2>&1")
	if err != nil && s.machine.Boots() == n {
		var c *vm.CommandError
		if errors.As(err, &c) && c.Status() > 0 {
			return err
		}
	}
	return s.machine.WaitBoot(s.ctx, n+1)
}

func (s *story) update() error {
	s.chapter("4. Update: verify, stream into the passive slot, read back, arm, reboot, judge")
	for _, version := range []string{"1.0.0", "1.0.1"} { // the first for the delta from it
		if err := s.publish(version, ""); err != nil {
			return err
		}
	}
	silence := watch(s.ctx, "http://"+s.machine.Addr(8080)+"/")
	defer silence.stop()
	if err := s.step("download and write 1.0.1", func() (string, error) {
		return "1.0.1 is in the passive slot, verified and armed; rebooting into it", s.apply()
	}); err != nil {
		return err
	}
	return s.step("try 1.0.1", func() (string, error) {
		if err := s.up(); err != nil {
			return "", err
		}
		if err := s.runs("1.0.1"); err != nil {
			return "", err
		}
		out, err := s.answer()
		time.Sleep(time.Second) // for somebody outside to hear it, too
		return fmt.Sprintf("1.0.1 is good: %s\nthe container was silent for %.1f s, as seen from outside", out, silence.end().Seconds()), err
	})
}

// status is what the story reads of `updatectl status --json`.
type status struct {
	Running struct {
		Version string `json:"version"`
	} `json:"running"`
	Quarantine []struct {
		Version string `json:"version"`
		Reason  string `json:"reason"`
	} `json:"quarantine"`
}

func (s *story) status() (status, error) {
	var st status
	out, err := s.run("updatectl status --json")
	if err != nil {
		return st, err
	}
	return st, json.Unmarshal([]byte(out), &st)
}

func (s *story) runs(version string) error {
	st, err := s.status()
	if err == nil && st.Running.Version != version {
		err = fmt.Errorf("%s runs, expected %s", st.Running.Version, version)
	}
	return err
}

// back checks that 1.0.1 runs and says why version is remembered as bad.
func (s *story) back(version string) (string, error) {
	if err := s.up(); err != nil {
		return "", err
	}
	if err := s.runs("1.0.1"); err != nil {
		return "", err
	}
	if _, err := s.answer(); err != nil {
		return "", err
	}
	st, err := s.status()
	if err != nil {
		return "", err
	}
	for _, q := range st.Quarantine {
		if q.Version == version {
			return fmt.Sprintf("on 1.0.1 again, by itself; %s is remembered as bad:\n%s", version, q.Reason), nil
		}
	}
	return "", fmt.Errorf("%s is not in quarantine: %+v", version, st.Quarantine)
}

func (s *story) comeBack() error {
	s.chapter("5. Come back: three bad releases, each correctly signed")
	if err := s.publish("1.0.2", "panic"); err != nil {
		return err
	}
	if err := s.step("try 1.0.2, whose kernel panics", func() (string, error) {
		if err := s.apply(); err != nil {
			return "", err
		}
		if err := s.machine.WaitBoot(s.ctx, s.machine.Boots()+3); err != nil {
			return "", err
		}
		return s.back("1.0.2")
	}); err != nil {
		return err
	}
	if err := s.publish("1.0.3", "firewall"); err != nil {
		return err
	}
	if err := s.step("try 1.0.3, which cuts its container off", func() (string, error) {
		if err := s.apply(); err != nil {
			return "", err
		}
		if err := s.machine.WaitBoot(s.ctx, s.machine.Boots()+1); err != nil {
			return "", err
		}
		return s.back("1.0.3")
	}); err != nil {
		return err
	}
	// The last one, because nobody can make a delta from it.
	if err := s.publish(wrong, ""); err != nil {
		return err
	}
	return s.step("try "+wrong+", whose root hash is wrong", func() (string, error) {
		if out, err := s.run("updatectl apply --quiet 2>&1"); err == nil {
			return "", fmt.Errorf("%s was taken: %s", wrong, out)
		}
		return s.back(wrong)
	})
}

func (s *story) end() error {
	s.chapter("6. What was made and what happened")
	for _, l := range s.sizes {
		fmt.Fprintf(s.out, "  %s\n", l)
	}
	out, err := s.run("updatectl history; updatectl why")
	if err != nil {
		return err
	}
	for l := range strings.Lines(out) {
		fmt.Fprintf(s.out, "  %s", l)
	}
	fmt.Fprintf(s.out, "\n  %d boots, %.0f s of QEMU's CPU\n", s.machine.Boots(), s.machine.CPUTime().Seconds())
	return nil
}
