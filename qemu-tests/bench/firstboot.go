package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/proa-os/proa/qemu-tests/vm"
)

// AimAdded is how many seconds provisioning may add to the first boot of a machine that has no config.
const AimAdded = 1.0

// FirstBoots are first boots of one image without a config, in turn: of machines whose kernel command line names a platform, which look
// for a config, find none and are marked as provisioned, and of machines that have nothing to do with provisioning.
type FirstBoots struct {
	Accelerator string `json:"accelerator"`
	With        []Span `json:"with"`
	Without     []Span `json:"without"`
}

// Span is from the first word of systemd to multi-user.target: seconds on the host's clock, and of QEMU's CPU time.
type Span struct {
	Wall float64 `json:"wall"`
	CPU  float64 `json:"qemu_cpu"`
}

// MeasureFirstBoots boots new machines, Rounds of each kind.
func MeasureFirstBoots(ctx context.Context, o Options) (*FirstBoots, error) {
	if o.Rounds < 1 {
		return nil, fmt.Errorf("measure first boots: %d rounds: expected at least one", o.Rounds)
	}
	image, err := openImage(o.Image)
	if err != nil {
		return nil, err
	}
	f := &FirstBoots{}
	for round := range o.Rounds {
		for _, kind := range []struct {
			name string
			args []string
			to   *[]Span
		}{{"with", []string{"ignition.platform.id=qemu"}, &f.With}, {"without", nil, &f.Without}} {
			c := vm.Config{Name: "bench-first", Dir: filepath.Join(o.Out, "first-"+kind.name), Disk: image.Disk(), KernelArgs: kind.args}
			span, verdict, err := firstBoot(ctx, c)
			if err != nil {
				return nil, fmt.Errorf("measure first boot %s provisioning: %w", kind.name, err)
			}
			f.Accelerator = verdict
			*kind.to = append(*kind.to, span)
			fmt.Fprintf(o.Messages, "bench: first boot %d of %d, %-7s provisioning: systemd to multi-user %5.2f s, %5.2f s of CPU\n", round+1, o.Rounds, kind.name, span.Wall, span.CPU)
		}
	}
	return f, nil
}

// firstBoot boots a new machine as far as multi-user.target.
func firstBoot(ctx context.Context, c vm.Config) (s Span, accelerator string, err error) {
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
	if _, err := m.WaitConsole(ctx, multiUser); err != nil {
		return s, "", err
	}
	return Span{time.Since(begin).Seconds(), (m.CPUTime() - used).Seconds()}, string(m.Accelerator().Use), nil
}

// added is what the boots with provisioning take more: the difference of the least, and of the medians.
func (f *FirstBoots) added(of func(Span) float64) (least, median float64) {
	sorted := func(all []Span) []float64 {
		v := make([]float64, len(all))
		for i, s := range all {
			v[i] = of(s)
		}
		slices.Sort(v)
		return v
	}
	a, b := sorted(f.With), sorted(f.Without)
	middle := func(v []float64) float64 { return (v[(len(v)-1)/2] + v[len(v)/2]) / 2 }
	return a[0] - b[0], middle(a) - middle(b)
}

// Text is the result for people.
func (f *FirstBoots) Text() string {
	var b strings.Builder
	least, median := f.added(func(s Span) float64 { return s.Wall })
	cpuLeast, cpuMedian := f.added(func(s Span) float64 { return s.CPU })
	fmt.Fprintf(&b, "First boot without config under %s, %d times with and without provisioning in turn, systemd to multi-user:\n", strings.ToUpper(f.Accelerator), len(f.With))
	fmt.Fprintf(&b, "provisioning adds %.2f s by the least, %.2f s by the medians (CPU time: %.2f, %.2f).\n", least, median, cpuLeast, cpuMedian)
	verdict := "is reached"
	if median > AimAdded {
		verdict = "is not reached"
	}
	fmt.Fprintf(&b, "The aim, at most %.1f s, %s.\n", AimAdded, verdict)
	return b.String()
}
