package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/proa-os/proa/qemu-tests/vm"
	"github.com/proa-os/proa/qemu-tests/world"
)

// AimAdded is how many seconds provisioning may add to the first boot of a machine that has no config.
const AimAdded = 1.0

// FirstBoots are first boots of one release without a config, in turn: of machines whose kernel command line names a platform, which look
// for a config, find none, are marked as provisioned and go on; of such machines that reboot softly instead of going on (the variant softly);
// and of machines that have nothing to do with provisioning.
type FirstBoots struct {
	Accelerator string `json:"accelerator"`
	With        []Span `json:"with"`
	Softly      []Span `json:"softly"`
	Without     []Span `json:"without"`
}

// Span is from the first word of systemd to multi-user.target: seconds on the host's clock, and of QEMU's CPU time.
type Span struct {
	Wall float64 `json:"wall"`
	CPU  float64 `json:"qemu_cpu"`
}

// MeasureFirstBoots boots new machines, Rounds of each kind. It builds the variant of this checkout, which the image should be of, too.
func MeasureFirstBoots(ctx context.Context, o Options) (*FirstBoots, error) {
	if o.Rounds < 1 {
		return nil, fmt.Errorf("measure first boots: %d rounds: expected at least one", o.Rounds)
	}
	image, err := openImage(o.Image)
	if err != nil {
		return nil, err
	}
	softly, err := buildSoftly(ctx, o, image.Version())
	if err != nil {
		return nil, err
	}
	f := &FirstBoots{}
	platform := []string{"ignition.platform.id=qemu"}
	for round := range o.Rounds {
		for _, kind := range []struct {
			name, title string
			image       world.Image
			args, by    []string
			to          *[]Span
		}{
			{"with", "with provisioning", image, platform, nil, &f.With},
			{"softly", "with a soft reboot", softly, platform, []string{softReboots}, &f.Softly},
			{"without", "without provisioning", image, nil, nil, &f.Without},
		} {
			c := vm.Config{Name: "bench-first", Dir: filepath.Join(o.Out, "first-"+kind.name), Disk: kind.image.Disk(), KernelArgs: kind.args}
			span, verdict, err := firstBoot(ctx, c, kind.by...)
			if err != nil {
				return nil, fmt.Errorf("measure first boot %s: %w", kind.title, err)
			}
			f.Accelerator = verdict
			*kind.to = append(*kind.to, span)
			fmt.Fprintf(o.Messages, "bench: first boot %d of %d, %-20s systemd to multi-user %5.2f s, %5.2f s of CPU\n", round+1, o.Rounds, kind.title, span.Wall, span.CPU)
		}
	}
	return f, nil
}

// buildSoftly builds the variant in which provisioning ends in a soft reboot.
func buildSoftly(ctx context.Context, o Options, version string) (world.Image, error) {
	repo, err := world.FindRepository()
	if err != nil {
		return world.Image{}, err
	}
	out, err := filepath.Abs(o.Out) // programs run in the repository
	if err != nil {
		return world.Image{}, err
	}
	bin := filepath.Join(out, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return world.Image{}, err
	}
	return world.NewPrograms(repo, bin).Build(ctx, o.Messages, filepath.Join(out, version+"-softly"), version, "softly")
}

// firstBoot boots a new machine as far as multi-user.target, past the console lines by.
func firstBoot(ctx context.Context, c vm.Config, by ...string) (s Span, accelerator string, err error) {
	m, err := vm.Start(ctx, c)
	if err != nil {
		return s, "", err
	}
	defer func() {
		if cerr := m.Close(); err == nil {
			err = cerr
		}
		if err == nil {
			err = m.RemoveDisk()
		}
	}()
	if _, err := m.WaitConsole(ctx, systemdSpeaks); err != nil {
		return s, "", err
	}
	begin, used := time.Now(), m.CPUTime()
	for _, re := range append(by, multiUser) {
		if _, err := m.WaitConsole(ctx, re); err != nil {
			return s, "", err
		}
	}
	return Span{time.Since(begin).Seconds(), (m.CPUTime() - used).Seconds()}, string(m.Accelerator().Use), nil
}

// wall and cpu are what a Span has.
func wall(s Span) float64 { return s.Wall }
func cpu(s Span) float64  { return s.CPU }

// leastAndMedian are the least and the median of spans.
func leastAndMedian(all []Span, what func(Span) float64) (least, median float64) {
	v := make([]float64, len(all))
	for i, s := range all {
		v[i] = what(s)
	}
	slices.Sort(v)
	return v[0], (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// added is what boots a take more than b: the difference of the least, and of the medians.
func added(a, b []Span, what func(Span) float64) (least, median float64) {
	aLeast, aMedian := leastAndMedian(a, what)
	bLeast, bMedian := leastAndMedian(b, what)
	return aLeast - bLeast, aMedian - bMedian
}

// Text is the result for people.
func (f *FirstBoots) Text() string {
	var b strings.Builder
	least, median := added(f.With, f.Without, wall)
	cpuLeast, cpuMedian := added(f.With, f.Without, cpu)
	fmt.Fprintf(&b, "First boot without config under %s, %d times with and without provisioning in turn, systemd to multi-user:\n", strings.ToUpper(f.Accelerator), len(f.With))
	fmt.Fprintf(&b, "provisioning adds %.2f s by the least, %.2f s by the medians (CPU time: %.2f, %.2f).\n", least, median, cpuLeast, cpuMedian)
	verdict := "is reached"
	if median > AimAdded {
		verdict = "is not reached"
	}
	fmt.Fprintf(&b, "The aim, at most %.1f s, %s.\n", AimAdded, verdict)
	leastOn, on := leastAndMedian(f.With, wall)
	leastSoftly, softly := leastAndMedian(f.Softly, wall)
	cpuLeast, cpuMedian = added(f.Softly, f.With, cpu)
	fmt.Fprintf(&b, "Both ways on from provisioning, least and median: going on %.2f and %.2f s, soft reboot instead %.2f and %.2f s (%+.2f and %+.2f s; CPU time: %+.2f, %+.2f).\n",
		leastOn, on, leastSoftly, softly, leastSoftly-leastOn, softly-on, cpuLeast, cpuMedian)
	return b.String()
}
