package pull

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/proa-os/proa/internal/tooltree"
)

// engine is one puller.
type engine struct {
	name, version string
	room          *tooltree.Room
	group         *os.File // its cgroup, in the room
	program       string
	pull          []string   // arguments
	forget        [][]string // commands that leave nothing of the image
	kept          string     // directory in the room that holds the layers' files
}

// start makes the engines, and containerd's daemon. end undoes it, also after an error.
func start(ctx context.Context, room *tooltree.Room, dir, containerctl, image string) (engines []*engine, end func(), err error) {
	daemon := new(exec.Cmd)
	end = func() {
		for _, e := range engines {
			e.close()
		}
		if daemon.Process != nil {
			daemon.Wait()
		}
		room.Do(func() error { removeGroups(engines); return nil })
	}
	socket := filepath.Join(dir, "socket")
	ctr := []string{"--address", socket}
	podman := []string{"--root", "/var/lib/podman", "--runroot", "/run/podman", "--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--events-backend", "none"}
	engines = []*engine{
		{name: "containerctl", version: "of this checkout", program: containerctl, pull: []string{"pull", "--tls-verify=false", "--progress=none", image},
			forget: [][]string{{"rmi", image}, {"gc"}}, kept: "/var/lib/proa/containers/layers"},
		{name: "containerd", program: "ctr", pull: with(ctr, "images", "pull", "--plain-http", image),
			forget: [][]string{with(ctr, "images", "rm", "--sync", image)}, kept: "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots"},
		{name: "podman", program: "podman", pull: with(podman, "pull", "-q", "--tls-verify=false", image),
			forget: [][]string{with(podman, "rmi", "-af")}, kept: "/var/lib/podman/overlay"},
	}
	for _, e := range engines {
		e.room = room
		if err := e.born(); err != nil {
			return engines, end, err
		}
		if e.version != "" {
			continue
		}
		if e.version, err = e.ask(ctx); err != nil {
			return engines, end, err
		}
	}
	host, _, _ := strings.Cut(image, "/")
	err = room.Do(func() error { return settle(host) })
	if err != nil {
		return engines, end, err
	}
	daemon, err = engines[1].daemon(ctx, dir, socket, ctr)
	return engines, end, err
}

func with(global []string, args ...string) []string {
	return append(append([]string{}, global...), args...)
}

// settle makes the room what containerctl finds on a machine: there is a user who fetches, and the policy lets the registry's images in.
func settle(registry string) error {
	users, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll("/etc/proa/trust", 0o755),
		os.WriteFile("/etc/proa/trust/bench.toml", fmt.Appendf(nil, "[[trust]]\nprefix = %q\nrequire = \"accept\"\n", registry), 0o644),
		os.WriteFile("/etc/passwd", append(users, "proa-fetch:x:990:990::/:/bin/false\n"...), 0o644))
}

// born makes the cgroup.
func (e *engine) born() error {
	return e.room.Do(func() (err error) {
		if err = os.Mkdir(e.dir(), 0o755); err == nil || errors.Is(err, fs.ErrExist) {
			e.group, err = os.Open(e.dir())
		}
		return err
	})
}

func (e *engine) dir() string { return "/sys/fs/cgroup/proa-bench-pull-" + e.name }

// close kills what runs.
func (e *engine) close() {
	if e.group != nil {
		e.room.Do(func() error { return os.WriteFile(filepath.Join(e.dir(), "cgroup.kill"), []byte("1"), 0) })
		e.group.Close()
	}
}

// removeGroups waits for the last processes to be gone.
func removeGroups(engines []*engine) {
	for _, e := range engines {
		for range 100 {
			if err := os.Remove(e.dir()); err == nil || errors.Is(err, fs.ErrNotExist) {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// run runs a command of the engine in its cgroup.
func (e *engine) run(ctx context.Context, args ...string) (string, error) {
	ctx, stop := context.WithTimeout(ctx, 5*time.Minute)
	defer stop()
	c := e.room.Command(ctx, e.program, args...)
	c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(e.group.Fd())}
	out, err := e.room.Output(c)
	return string(out), err
}

// ask returns the program's version.
func (e *engine) ask(ctx context.Context) (string, error) {
	out, err := e.run(ctx, "--version")
	if err != nil {
		return "", err
	}
	for _, word := range strings.Fields(out) {
		if strings.ContainsAny(word, "0123456789") {
			return word, nil
		}
	}
	return "", fmt.Errorf("%s --version names none: %s", e.program, out)
}

// once pulls, and forgets what it has pulled.
func (e *engine) once(ctx context.Context) (sample, error) {
	before, err := e.settled()
	if err != nil {
		return sample{}, err
	}
	begin := time.Now()
	if _, err := e.run(ctx, e.pull...); err != nil {
		return sample{}, err
	}
	wall := time.Since(begin)
	after, err := e.settled()
	if err != nil {
		return sample{}, err
	}
	if err := e.room.Do(func() error { return hasFiles(e.kept) }); err != nil {
		return sample{}, err
	}
	for _, args := range e.forget {
		if _, err := e.run(ctx, args...); err != nil {
			return sample{}, err
		}
	}
	return sample{wall, after - before}, nil
}

// hasFiles: a pull that unpacked nothing would be a cheap one.
func hasFiles(dir string) error {
	n := 0
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		n++
		return err
	})
	if err == nil && n < 3000 {
		err = fmt.Errorf("it has unpacked only %d files in %s", n, dir)
	}
	return err
}

// settled is the group's CPU time when a fifth of a second has passed in which next to none was used.
func (e *engine) settled() (time.Duration, error) {
	last := time.Duration(-1)
	for range 100 {
		now, err := e.cpu()
		if err != nil || last >= 0 && now-last < 2*time.Millisecond {
			return now, err
		}
		last = now
		time.Sleep(200 * time.Millisecond)
	}
	return last, fmt.Errorf("%s does not come to rest", e.name)
}

// cpu reads cpu.stat, which every cgroup has, whatever controllers there are.
func (e *engine) cpu() (used time.Duration, err error) {
	err = e.room.Do(func() error {
		b, err := os.ReadFile(filepath.Join(e.dir(), "cpu.stat"))
		if err != nil {
			return err
		}
		used, err = parseUsage(b)
		return err
	})
	return used, err
}

func parseUsage(stat []byte) (time.Duration, error) {
	for line := range bytes.Lines(stat) {
		if v, ok := bytes.CutPrefix(line, []byte("usage_usec ")); ok {
			n, err := strconv.ParseInt(string(bytes.TrimSpace(v)), 10, 64)
			return time.Duration(n) * time.Microsecond, err
		}
	}
	return 0, fmt.Errorf("no usage_usec in cpu.stat: %q", stat)
}

// daemon starts containerd in the engine's cgroup and waits until it answers.
func (e *engine) daemon(ctx context.Context, dir, socket string, ctr []string) (*exec.Cmd, error) {
	config := filepath.Join(dir, "config.toml")
	text := fmt.Sprintf("version = 2\nroot = \"/var/lib/containerd\"\nstate = \"/run/containerd\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n[ttrpc]\naddress = \"%s.ttrpc\"\n", socket, socket)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	cmd := e.room.Command(ctx, "containerd", "--config", config, "--log-level", "error")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(e.group.Fd())}
	if err := e.room.Start(cmd); err != nil {
		return nil, err
	}
	for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		_, err := e.run(ctx, with(ctr, "version")...)
		if err == nil {
			return cmd, nil
		}
		if time.Since(begin) > 30*time.Second {
			return cmd, fmt.Errorf("containerd does not answer: %w", err)
		}
	}
}
