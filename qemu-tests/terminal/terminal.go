// Package terminal runs a machine for a person: what `make run` does.
//
// The machine is the one the stories test (package vm): same QEMU, same firmware, same disk copy, same kernel arguments. Its serial
// console is joined to the terminal in raw mode; Ctrl-A is the escape key, see keys. The machine's folder is `run` beside the
// disk image; every run begins with a fresh disk unless the last one is kept.
package terminal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/coreos/ignition/v2/config/v3_6/types"
	"golang.org/x/term"

	"github.com/proa-os/proa/ignition/butane"
	"github.com/proa-os/proa/ignition/config"
	"github.com/proa-os/proa/ignition/plan"
	"github.com/proa-os/proa/ignition/source"
	"github.com/proa-os/proa/qemu-tests/provision"
	"github.com/proa-os/proa/qemu-tests/vm"
	"github.com/proa-os/proa/qemu-tests/world"
)

// Options are the flags of cmd/run.
type Options struct {
	Image    string // disk.img, or its folder, or a folder of releases of which the newest is run
	Config   string // config, Ignition JSON or Butane YAML, to lay over the default one, "" for none
	Headless bool   // the console goes to its log only
	Keep     bool   // go on with the disk of the last run
	Memory   int    // MiB
	CPUs     int
	DiskGiB  int64
	Ports    []int // guest TCP ports to forward besides 22

	In       *os.File // the terminal, or anything else that is read to its end
	Out      io.Writer
	Messages io.Writer // what is said about the machine, not by it
}

// Run boots the machine and stays until it powers off, the person ends it, or ctx ends.
func Run(ctx context.Context, o Options) error {
	image, err := findImage(o.Image)
	if err != nil {
		return err
	}
	dir := filepath.Join(image.Dir, "run")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("run: %w", err)
	}
	key, err := loadKey(dir, o.Keep)
	if err != nil {
		return err
	}
	described, err := ignition(ctx, key, o.Config)
	if err != nil {
		return err
	}
	fmt.Fprintf(o.Messages, "Starting Proa %s (the first start on a host also tries KVM).\n", image.Version())
	m, err := vm.Start(ctx, vm.Config{
		Name: "proa-" + image.Version(), Dir: dir, Disk: image.Disk(), DiskSize: o.DiskGiB << 30, KeepDisk: o.Keep,
		Ignition: described, MemoryMiB: o.Memory, CPUs: o.CPUs, Ports: o.Ports, Key: key,
	})
	if err != nil {
		return err
	}
	fmt.Fprint(o.Messages, welcome(m, image, o))
	err = attach(ctx, m, o)
	return errors.Join(err, m.Close())
}

func findImage(path string) (world.Image, error) {
	if filepath.Base(path) == "disk.img" {
		path = filepath.Dir(path)
	}
	if _, err := os.Stat(filepath.Join(path, "release.json")); err == nil {
		return world.OpenImage(path)
	}
	return world.NewestImage(path)
}

// loadKey makes the machine's ssh key, dir/key. A disk that is kept knows the key it was provisioned with.
func loadKey(dir string, keep bool) (*vm.Key, error) {
	file := filepath.Join(dir, "key")
	if keep {
		b, err := os.ReadFile(file)
		if err == nil {
			return vm.ParseKey(b)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read ssh key: %w", err)
		}
	}
	key, err := vm.NewKey()
	if err != nil {
		return nil, err
	}
	b, err := key.PrivatePEM()
	if err != nil {
		return nil, err
	}
	for _, old := range []string{file, filepath.Join(dir, "known_hosts")} {
		if err := os.Remove(old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("replace ssh key: %w", err)
		}
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return nil, fmt.Errorf("write ssh key: %w", err)
	}
	return key, nil
}

// autologin opens a session on the console of this machine, which nobody but its starter can reach: core has no password.
const autologin = "[Service]\nExecStart=\nExecStart=-/usr/sbin/agetty --autologin core --noclear --keep-baud 115200,57600,38400,9600 - $TERM\n"

// ignition is the default config, the key for core and root and a session on the console, with the person's own laid over it.
func ignition(ctx context.Context, key *vm.Key, file string) ([]byte, error) {
	c := provision.New().SSHKey("core", key.AuthorizedKey()).SSHKey("root", key.AuthorizedKey()).
		File("/etc/systemd/system/serial-getty@ttyS0.service.d/10-autologin.conf", 0o644, autologin)
	if file != "" {
		own, err := checked(ctx, file)
		if err != nil {
			return nil, err
		}
		c.Include(string(own))
	}
	return c.JSON()
}

// checked is the person's config, found right by the machine's own checks, so that a mistake costs no boot. The machine gets it as it is
// written and its errors name the person's lines, unless it takes files from beside it: a machine has none.
func checked(ctx context.Context, file string) ([]byte, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	root, err := os.OpenRoot(filepath.Dir(file))
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	defer root.Close()
	m, err := config.LoadWithFiles(ctx, file, raw, fetchHere, root.FS())
	if err != nil {
		return nil, fmt.Errorf("check config: %w", err)
	}
	if _, err := plan.Build(m); err != nil {
		return nil, fmt.Errorf("check config: %w", err)
	}
	if !butane.Is(raw) {
		return raw, nil
	}
	if _, err := butane.Translate(raw, nil); err == nil {
		return raw, nil
	}
	translated, err := butane.Translate(raw, root.FS())
	if err != nil {
		return nil, fmt.Errorf("translate config %s: %w", file, err)
	}
	return translated.JSON, nil
}

// fetchHere reads the configs that a config holds itself. Those on a network are the machine's to fetch: it may be one that only the
// machine is on.
func fetchHere(ctx context.Context, r types.Resource, sofar types.Config) ([]byte, error) {
	raw, err := source.Fetcher{Offline: true}.Config(ctx, r, sofar)
	if errors.Is(err, source.ErrNeedNetwork) {
		return []byte(`{"ignition":{"version":"3.6.0"}}`), nil
	}
	return raw, err
}

// welcome says how to get in and how to stop.
func welcome(m *vm.Machine, image world.Image, o Options) string {
	var b strings.Builder
	dir := relative(m.Dir())
	fmt.Fprintf(&b, "Proa %s boots under QEMU (%s: %s).\n", image.Version(), m.Accelerator().Use, m.Accelerator().Why)
	if _, err := exec.LookPath("ssh"); err != nil {
		fmt.Fprint(&b, "  get in   the console logs in by itself; with ssh installed here, also:\n")
	}
	fmt.Fprintf(&b, "  get in   ssh -i %s/key -o UserKnownHostsFile=%s/known_hosts -o StrictHostKeyChecking=accept-new -p %d core@127.0.0.1\n",
		dir, dir, m.Port(22))
	for _, p := range o.Ports {
		fmt.Fprintf(&b, "  port     %d of the machine is %s here\n", p, m.Addr(p))
	}
	fmt.Fprintf(&b, "  console  %s/console.log", dir)
	if o.Headless {
		fmt.Fprint(&b, "\n  stop     Ctrl-C\n")
		return b.String()
	}
	fmt.Fprint(&b, ", and below\n  stop     Ctrl-A x (Ctrl-A h: other keys), or `poweroff` in the machine\n\n")
	return b.String()
}

func relative(path string) string {
	if wd, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(wd, path); err == nil && filepath.IsLocal(rel) {
			return rel
		}
	}
	return path
}

// attach joins console and terminal until one of them ends. That the machine powers off or is ended is no error.
func attach(ctx context.Context, m *vm.Machine, o Options) error {
	ended := make(chan error, 2)
	go func() { ended <- m.Wait(ctx) }()
	if !o.Headless {
		m.Console().Tap(o.Out)
		defer m.Console().Tap(nil)
		if fd := int(o.In.Fd()); term.IsTerminal(fd) {
			old, err := term.MakeRaw(fd)
			if err != nil {
				return fmt.Errorf("set up the terminal: %w", err)
			}
			defer term.Restore(fd, old)
		}
		go func() {
			if done, err := typed(ctx, m, o); done {
				ended <- err
			}
		}()
	}
	err := <-ended
	if ctx.Err() != nil || errors.Is(err, vm.ErrPoweredOff) {
		return nil
	}
	return err
}

// typed sends what is typed to the machine, until done: the person has ended it, or a command failed. The end of the
// input ends nothing.
func typed(ctx context.Context, m *vm.Machine, o Options) (done bool, err error) {
	var k keys
	buf := make([]byte, 256)
	for {
		n, readErr := o.In.Read(buf)
		var text []byte
		for _, b := range buf[:n] {
			send, c := k.next(b)
			if send {
				text = append(text, b)
			}
			if done, err := do(ctx, m, o, c); done || err != nil {
				return true, err
			}
		}
		if len(text) > 0 {
			m.Type(string(text)) // A machine that just reboots loses keys, as a real one does.
		}
		if readErr != nil {
			return false, nil
		}
	}
}

func do(ctx context.Context, m *vm.Machine, o Options, c command) (done bool, err error) {
	switch c {
	case quit:
		return true, nil
	case reset:
		return false, m.Reset(ctx)
	case cut:
		return false, m.PowerCycle(ctx)
	case help:
		fmt.Fprint(o.Out, strings.ReplaceAll(helpText, "\n", "\r\n"))
	}
	return false, nil
}
