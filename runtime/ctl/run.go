package ctl

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/proa-os/proa/internal/command"
	"github.com/proa-os/proa/runtime/bundle"
	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/ref"
	"github.com/proa-os/proa/runtime/spec"
	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/unit"
)

func runVerb() verb {
	return verb{name: "run", args: "IMAGE [COMMAND [ARGUMENTS]]", what: "make a container and start it", min: 1, max: -1, last: true, lister: "images",
		more: `The container is the unit proa-NAME.service. With -d it runs in the background and, unless --restart no or --rm is
given, after every boot. Without -d this command passes input and output on and ends with the workload's exit code; when it is killed the
container goes on.

The image is pulled if it is not there. Its network is "bridge", in which it finds other containers by their names, and -p leads a
port of the machine to it.

Limits, devices and restarts are the unit's own settings: systemctl show proa-NAME tells them, and drop-ins change them.`,
		exits:     "Else that of the workload; 125 if containerctl is to blame, 126 if the workload's program cannot be executed, 127 if it is not there.",
		examples:  []string{"containerctl run -it --rm debian:13", "containerctl run -d --name web -p 80:80 --memory 256m nginx:1"},
		elsewhere: elsewhere,
		setup: func(s *flagset.Set) action {
			r := newRunFlags()
			r.flags(s)
			return r.run
		}}
}

// checkFlags refuses what does not go together.
func (r *runFlags) checkFlags(c *call) error {
	k := &r.c
	if err := errors.Join(r.net.check(k), checkNamespaces(k), r.setQuota()); err != nil {
		return command.Wrong("run: %w", err)
	}
	switch {
	case !r.detach && !r.later && k.Restart != "" && k.Restart != "no":
		return command.Wrong("run: --restart needs -d")
	case k.Remove && k.Restart != "" && k.Restart != "no":
		return command.Wrong("run: --rm and --restart exclude each other")
	case r.detach && k.Preserve > 0:
		return command.Wrong("run: --preserve-fds needs the foreground: use a socket unit, proa-NAME.socket, for -d")
	case k.MemorySwap != nil && *k.MemorySwap >= 0 && *k.MemorySwap < k.Memory:
		return command.Wrong("run: --memory-swap is the limit of both, so not less than --memory")
	case k.Stdin && k.Terminal && !r.detach && !r.later && !term.IsTerminal(int(c.In.Fd())):
		return command.Wrong("run: -t: standard input is no terminal: leave out -t, or -i")
	}
	return nil
}

// run makes the container and starts it.
func (r *runFlags) run(ctx context.Context, c *call) error {
	if err := r.checkFlags(c); err != nil {
		return err
	}
	c.Units.Connect(ctx) // while the container is made
	k, err := c.describe(ctx, r)
	if err != nil {
		return err
	}
	once := !r.detach && fitsOnce(k)
	if once {
		k.Instance = fmt.Sprintf("%016x", rand.Uint64())
	} else if err := c.unitIsFree(ctx, c.store, k.Name); err != nil {
		return err
	}
	release, err := r.add(ctx, c, k)
	if err != nil {
		return err
	}
	defer release()
	if once {
		return c.once(ctx, k)
	}
	if r.detach {
		if err = c.startUnit(ctx, k); err != nil {
			err = startError{err, c.codeOf(k)}
		}
	} else {
		err = c.foreground(ctx, k)
	}
	var failed startError
	if err != nil && (r.detach || errors.As(err, &failed)) {
		// What was asked for did not come to be: leave nothing that starts at the next boot.
		return errors.Join(err, c.remove(context.WithoutCancel(ctx), c.store, k.Name))
	}
	if r.detach {
		fmt.Fprintln(c.Out, k.Name)
	}
	return err
}

// add puts the container into the store, and holds it there: until release it is about to be started.
func (r *runFlags) add(ctx context.Context, c *call, k *store.Container) (release func(), err error) {
	if err := c.forget(ctx, k.Name); err != nil {
		return nil, err
	}
	if r.cidFile != "" {
		f, err := os.OpenFile(r.cidFile, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return nil, fmt.Errorf("--cidfile: %w", err)
		}
		_, err = f.WriteString(k.Name)
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
	release, err = r.place(c, k)
	if err != nil && !errors.Is(err, store.ErrExists) && c.forgetAll(ctx) == nil {
		release, err = r.place(c, k) // what it lacked, a port perhaps, may have been left by a killed program
	}
	if errors.Is(err, store.ErrExists) {
		return nil, fmt.Errorf("%w: remove it first: containerctl rm %s", err, k.Name)
	}
	if err != nil {
		return nil, err
	}
	c.event(k, "create", k.Name+" is made of "+k.Image)
	return release, nil
}

// place gives the container what it has alone, and puts it into the store.
func (r *runFlags) place(c *call, k *store.Container) (release func(), err error) {
	unlock, err := c.store.Lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	all, err := c.store.Containers()
	if err != nil {
		return nil, err
	}
	if k.IDs, err = allotIDs(all, r.userns); err != nil {
		return nil, err
	}
	if err = c.planNetwork(k, true); err == nil {
		err = c.store.AddContainer(k)
	}
	if err != nil {
		return nil, err
	}
	return c.store.HoldContainer(k.Name)
}

// forgetAll does what forget does with all.
func (c *call) forgetAll(ctx context.Context) error {
	ks, err := c.store.Containers()
	for _, k := range ks {
		err = errors.Join(err, c.forget(ctx, k.Name))
	}
	return err
}

// forget removes a container that was to live for one run, and that a power cut or a kill has left.
func (c *call) forget(ctx context.Context, name string) error {
	k, err := c.store.Container(name)
	if err != nil || !k.Remove || k.Waiting {
		return nil // AddContainer tells
	}
	release, ok, err := c.store.SeizeContainer(name)
	if err != nil || !ok {
		return err // another run is about to start it, or another gc to remove it
	}
	defer release()
	if k, err = c.store.Container(name); err != nil || !k.Remove || k.Waiting {
		return nil // another one by now
	}
	vs, err := c.views(ctx, []*store.Container{k})
	if err != nil || !vs[0].over() {
		return err
	}
	return c.takeAway(ctx, c.store, k)
}

// unitIsFree refuses a name whose unit is somebody else's: proa-health.service, say, is the OS's own, and a container's unit in
// /etc would take its place.
func (e *Env) unitIsFree(ctx context.Context, s *store.Store, name string) error {
	if _, err := s.Container(name); err == nil {
		return nil // AddContainer has the better error
	}
	u := unit.Name(name)
	for deadline := time.Now().Add(2 * time.Second); ; {
		states, err := e.Units.Status(ctx, []string{u})
		if err != nil {
			return err
		}
		st := states[u]
		if st.Load == "not-found" {
			return nil
		}
		// Systemd may be about to forget that of a container which lived for one run, whatever it says of it until then.
		if time.Now().After(deadline) {
			return fmt.Errorf("container name %s: systemd has a unit %s already (%s): choose another name", name, u, st.Load)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// describe turns flags and image into a container.
func (c *call) describe(ctx context.Context, r *runFlags) (*store.Container, error) {
	progress := "auto"
	if r.quiet {
		progress = "none"
	}
	name, rec, err := c.obtain(ctx, c.args[0], &pullFlags{tlsVerify: r.tlsVerify, progress: progress, policy: r.pull})
	if err != nil {
		return nil, err
	}
	img, err := c.store.Load(rec.Digest)
	if err != nil {
		return nil, err
	}
	if err := r.checkPlatform(name); err != nil {
		return nil, err
	}
	k := r.c
	k.Image, k.Manifest, k.Layers = rec.Name, rec.Digest, img.Config.RootFS.DiffIDs
	k.Args = c.args[1:]
	k.Env = slices.Concat(r.fileEnv, k.Env)
	k.Labels = labels(img.Config.Config.Labels, r.fileLabels, k.Labels)
	if err := r.shareVolumes(c, &k); err != nil {
		return nil, err
	}
	k.Created = time.Now().UTC().Truncate(time.Second)
	if k.Name == "" {
		k.Name = fmt.Sprintf("%s-%06x", path.Base(name.Repository()), rand.N(1<<24))
	}
	if err := store.CheckName(k.Name); err != nil {
		return nil, err
	}
	if k.Restart == "" {
		k.Restart = "no"
		if r.detach && !k.Remove {
			k.Restart = "always"
		}
	}
	if k.StopSignal == "" {
		k.StopSignal = img.Config.Config.StopSignal
	}
	if k.StopSignal != "" {
		if _, err := spec.Signal(k.StopSignal); err != nil {
			return nil, err
		}
	}
	if k.Health, err = healthOf(r, &img.Config); err != nil {
		return nil, err
	}
	if err := r.net.publishExposed(&k, img.Config.Config.ExposedPorts); err != nil {
		return nil, err
	}
	if k.AwaitHealth && k.Health == nil {
		return nil, errors.New("ready when healthy: there is no health check: say --health-cmd (HealthCmd=), or use an image that has one")
	}
	// All that can be wrong is found now and not at the next boot.
	if _, err := bundle.Spec(&k, &img.Config, bundle.User{}, bundle.Place{Rootfs: "/", Files: "/"}, bundle.Start{}); err != nil {
		return nil, err
	}
	return &k, nil
}

// labels puts labels over others, as docker does: the image's, those of files, those of flags. What an image says to podman's own programs
// is left out: whether it is updated by itself is the machine's to say.
func labels(image, file, flags map[string]string) map[string]string {
	out := make(map[string]string)
	for _, m := range []map[string]string{image, file, flags} {
		maps.Copy(out, m)
	}
	maps.DeleteFunc(out, func(k, _ string) bool {
		_, ours := flags[k]
		return strings.HasPrefix(k, "io.containers.") && !ours && file[k] == ""
	})
	if len(out) == 0 {
		return nil
	}
	return out
}

// checkPlatform: of an image for many platforms the one for this machine is there, and no other runs.
func (r *runFlags) checkPlatform(name ref.Ref) error {
	if want := "linux/" + runtime.GOARCH; r.platform != "" && r.platform != want {
		return fmt.Errorf("--platform %s: this machine runs %s images; %s is fetched for that", r.platform, want, name)
	}
	return nil
}

// startUnit installs the unit and starts it.
func (c *call) startUnit(ctx context.Context, k *store.Container) error {
	release, err := c.store.HoldStart(k)
	if err != nil {
		return err
	}
	defer release()
	if err := c.begins(k); err != nil {
		return err
	}
	if err := unit.Install(c.unitDir(k), k); err != nil {
		return err
	}
	if err := c.Units.Refresh(ctx, unit.Name(k.Name), true); err != nil {
		return err
	}
	if err := c.Units.Start(ctx, unit.Name(k.Name)); err != nil {
		return fmt.Errorf("%w%s", err, c.lastWords(ctx, k.Name))
	}
	return nil
}

// lastWords are the last lines of a container that did not start, for the error: the container itself is about to go.
func (e *Env) lastWords(ctx context.Context, name string) string {
	b, err := exec.CommandContext(ctx, e.Journal, "--quiet", "--no-pager", "--output=cat", "--lines=1", "_SYSTEMD_UNIT="+unit.Name(name)).Output()
	if err != nil || len(b) == 0 {
		return ""
	}
	return ": " + strings.TrimSpace(string(b))
}
