// Package pull measures what it costs to pull an image: to fetch it from a registry on the loopback interface, to verify and to unpack it,
// by containerctl, by containerd and by podman of a pinned distribution (manifests/judges.toml), in one session.
//
// The image is made of Debian packages, a layer each, compressed with gzip. All three run in one room of the judges' tree (tooltree.Room) and
// store in memory: a disk would be measured otherwise. Every round lets each pull once, in a shuffled order, into a store that has nothing of
// the image. CPU is that of a cgroup which all processes of the puller are born in: children, helpers, and containerd's daemon, which is
// measured from before the command until it has been quiet for a moment. The registry is this process, and is not counted.
//
// What is told are ratios of medians, and whether they meet the bars. Times of a shared machine say little by themselves.
package pull

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/proa-os/proa/internal/tooltree"
	"github.com/proa-os/proa/qemu-tests/world"
)

// Options say what to measure.
type Options struct {
	Repo         string // the checkout, for the locks of packages
	Containerctl string // the program to measure
	Rounds       int
	Progress     io.Writer
}

// Bars are what containerctl must not exceed, as ratios of medians of CPU time.
const (
	BarContainerd = 0.6
	BarPodman     = 0.35
)

// sample is one pull.
type sample struct{ wall, cpu time.Duration }

// Run measures.
func Run(ctx context.Context, o Options) (*Report, error) {
	tree, err := tooltree.OpenJudges()
	if err != nil {
		return nil, err
	}
	registry, err := world.StartRegistry()
	if err != nil {
		return nil, err
	}
	defer registry.Close()
	r := &Report{Rounds: o.Rounds}
	fmt.Fprintln(o.Progress, "make the image")
	if r.Layers, r.Packed, r.Plain, err = registry.PushPackages(ctx, o.Repo, "many:1"); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "bench-pull-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	program, err := filepath.Abs(o.Containerctl)
	if err != nil {
		return nil, err
	}
	room, err := tree.Enter(tooltree.RoomOptions{Binds: []string{dir, program}, Network: true})
	if err != nil {
		return nil, err
	}
	defer room.Close()
	engines, end, err := start(ctx, room, dir, program, registry.Addr+"/many:1")
	defer end()
	if err != nil {
		return nil, err
	}
	return r, measure(ctx, r, engines, o.Progress)
}

// measure runs the rounds, and one before them that does not count: programs are then in memory.
func measure(ctx context.Context, r *Report, engines []*engine, progress io.Writer) error {
	samples := make([][]sample, len(engines))
	for round := range r.Rounds + 1 {
		fmt.Fprintf(progress, "round %d of %d\n", round, r.Rounds)
		for _, i := range rand.Perm(len(engines)) {
			s, err := engines[i].once(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", engines[i].name, err)
			}
			if round > 0 {
				samples[i] = append(samples[i], s)
			}
		}
	}
	for i, e := range engines {
		r.Rows = append(r.Rows, newRow(e.name, e.version, samples[i]))
	}
	return nil
}

func newRow(name, version string, s []sample) Row {
	median := func(of func(sample) time.Duration) (low, mid float64) {
		var all []time.Duration
		for _, v := range s {
			all = append(all, of(v))
		}
		slices.Sort(all)
		return all[0].Seconds(), all[len(all)/2].Seconds()
	}
	row := Row{Name: name, Version: version}
	row.WallMin, row.WallMed = median(func(v sample) time.Duration { return v.wall })
	row.CPUMin, row.CPUMed = median(func(v sample) time.Duration { return v.cpu })
	return row
}
