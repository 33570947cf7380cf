// Package start measures how long a container takes from nothing to its end: `run` of a program that only exits, by oci-runtime and
// by crun and runc of a pinned distribution (manifests/peers.toml), in one session.
//
// Absolute times of a shared machine say little, so every round runs each runtime once, in a shuffled order, and what is told are ratios of
// minima and medians, for the clock and for the CPU time of the runtime and all its children. Peak memory is read from the kernel when
// the runtime's first process is about to end (PTRACE_EVENT_EXIT), in runs of their own: wait4's number contains the caller's.
//
// The bundle has what an engine asks for by default: new pid, network, ipc, uts, mount and cgroup namespaces, docker's capabilities and
// seccomp list, masked and read-only paths, a read-only root, and in the profile "cgroup" a cgroup with a device program. Runtimes that
// cannot run it here are named with their own words and left out of that profile.
//
// oci-runtime runs from a read-only mount, as on a machine, whose root is EROFS; the row "writable" is the same program from a file
// system that can be written, where it must start twice.
package start

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Options say what to measure.
type Options struct {
	Out     string   // folder for what is made meanwhile
	Runtime string   // oci-runtime
	Pinned  []string // names of peers in manifests/peers.toml
	Peers   []string // others: names in PATH, or paths
	Rounds  int

	Manifests string // folder with peers.toml and its lock
	APT       string // the host's apt configuration, normally /etc/apt
}

// Bars are what oci-runtime must not exceed, as ratios of medians to crun, and in MB.
const (
	BarWall, BarCPU = 0.7, 0.8
	BarRSS          = 6.0
	BarSize         = 4.0
)

// peer is one program to measure.
type peer struct {
	name, program string
	version       string  // "" if unknown
	size          float64 // MB; 0 if unknown
}

// sample is one run.
type sample struct{ wall, cpu time.Duration }

// Run measures every profile. The process must be in a mount namespace of its own (Isolate).
func Run(ctx context.Context, o Options) (*Report, error) {
	dir, err := filepath.Abs(o.Out)
	if err != nil {
		return nil, err
	}
	peers, err := ours(dir, o.Runtime)
	if err != nil {
		return nil, err
	}
	r := &Report{Rounds: o.Rounds}
	if st, err := os.Stat(o.Runtime); err == nil {
		r.Size = float64(st.Size()) / 1e6
	}
	if len(o.Pinned) > 0 {
		more, err := pinned(ctx, o, o.Pinned)
		if err != nil {
			return nil, fmt.Errorf("pinned peers: %w", err)
		}
		peers = append(peers, more...)
	}
	for _, p := range o.Peers {
		program, err := exec.LookPath(p)
		if err != nil {
			r.Missing = append(r.Missing, fmt.Sprintf("%s: not installed", p))
			continue
		}
		more := peer{name: filepath.Base(p), program: program}
		if more.version, err = more.ask(ctx); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(peers, func(q peer) bool { return q.name == more.name }) {
			more.name += " " + more.version
		}
		peers = append(peers, more)
	}
	for _, name := range profiles {
		p, err := measureProfile(ctx, filepath.Join(dir, "bundle-"+name), name, peers, o.Rounds)
		if err != nil {
			return nil, fmt.Errorf("profile %s: %w", name, err)
		}
		r.Profiles = append(r.Profiles, *p)
	}
	return r, nil
}

// ours are the two rows of oci-runtime.
func ours(dir, program string) ([]peer, error) {
	b, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	fixed := filepath.Join(dir, "read-only")
	if err := os.MkdirAll(fixed, 0o755); err != nil {
		return nil, err
	}
	if err := unix.Mount("tmpfs", fixed, "tmpfs", 0, ""); err != nil {
		return nil, fmt.Errorf("mount: %w", err)
	}
	file := filepath.Join(fixed, "oci-runtime")
	if err := os.WriteFile(file, b, 0o755); err != nil {
		return nil, err
	}
	if err := unix.Mount("", fixed, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return nil, fmt.Errorf("make read-only: %w", err)
	}
	writable, err := filepath.Abs(program)
	if err != nil {
		return nil, err
	}
	return []peer{{name: "oci-runtime", program: file}, {name: "writable", program: writable}}, nil
}

func measureProfile(ctx context.Context, dir, name string, peers []peer, rounds int) (*Profile, error) {
	if err := WriteBundle(dir, name); err != nil {
		return nil, err
	}
	p := &Profile{Name: name}
	var use []peer
	for _, c := range peers {
		if _, err := once(ctx, c, dir); err != nil {
			p.LeftOut = append(p.LeftOut, fmt.Sprintf("%s: %v", c.name, err))
			continue
		}
		use = append(use, c)
	}
	samples := make([][]sample, len(use))
	for range rounds {
		for _, i := range rand.Perm(len(use)) {
			s, err := once(ctx, use[i], dir)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", use[i].name, err)
			}
			samples[i] = append(samples[i], s)
		}
	}
	for i, c := range use {
		rss, err := peakRSS(c, dir)
		if err != nil {
			return nil, fmt.Errorf("%s: measure memory: %w", c.name, err)
		}
		row := newRow(c.name, samples[i], rss)
		row.Version, row.Size = c.version, c.size
		p.Rows = append(p.Rows, row)
	}
	return p, nil
}

// arguments are those that all runtimes understand.
func arguments(c peer, dir string) []string {
	return []string{"--root", filepath.Join(dir, "state-"+strings.ReplaceAll(c.name, " ", "-")), "run", "--bundle", dir, "bench-" + strings.ReplaceAll(c.name, " ", "-")}
}

// once runs the container and fails unless it ends with 0.
func once(ctx context.Context, c peer, dir string) (sample, error) {
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, c.program, arguments(c, dir)...)
	var errs bytes.Buffer
	// A file for a pipe: no goroutine reads while the clock runs.
	f, err := os.CreateTemp(dir, "stderr")
	if err != nil {
		return sample{}, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	cmd.Stderr = f
	begin := time.Now()
	err = cmd.Run()
	wall := time.Since(begin)
	if err != nil {
		if b, rerr := os.ReadFile(f.Name()); rerr == nil {
			errs.Write(b)
		}
		return sample{}, errors.New(strings.TrimSpace(err.Error() + ": " + errs.String()))
	}
	return sample{wall, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}, nil
}
