package oneshot

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/proa-os/proa/qemu-tests/bench/rounds"
)

// Bars, as ratios to crun's medians.
const (
	Bar           = 1.5 // containerctl run, on the clock
	RuntimeBar    = 0.7 // oci-runtime run, on the clock
	RuntimeCPUBar = 0.8 // and in processor time
)

// Names of what is measured.
const (
	Crun       = "crun run"
	Scope      = "crun --systemd-cgroup run"
	OCIRuntime = "oci-runtime run"
	None       = "containerctl run --network none"
	Bridge     = "containerctl run"
	Service    = "systemd-run --wait"
)

// A Report is what was measured.
type Report struct {
	Rounds      int    `json:"rounds"`
	Accelerator string `json:"accelerator"`
	Rows        []Row  `json:"rows"`
}

// A Row is one command. Times are milliseconds; CPU is the whole machine's.
type Row struct {
	Name    string  `json:"name"`
	WallMin float64 `json:"wall_min"`
	WallMed float64 `json:"wall_med"`
	CPUMin  float64 `json:"cpu_min"`
	CPUMed  float64 `json:"cpu_med"`
}

func newReport(n int, accelerator string, samples map[string][]rounds.Sample) *Report {
	r := &Report{Rounds: n, Accelerator: accelerator}
	for _, name := range []string{Crun, Scope, OCIRuntime, None, Bridge, Service} {
		row := Row{Name: name}
		row.WallMin, row.WallMed = minMed(samples[name], func(s rounds.Sample) time.Duration { return s.Wall })
		row.CPUMin, row.CPUMed = minMed(samples[name], func(s rounds.Sample) time.Duration { return s.CPU })
		r.Rows = append(r.Rows, row)
	}
	return r
}

func minMed(samples []rounds.Sample, of func(rounds.Sample) time.Duration) (low, mid float64) {
	var all []float64
	for _, s := range samples {
		all = append(all, float64(of(s).Microseconds())/1e3)
	}
	if len(all) == 0 {
		return 0, 0
	}
	slices.Sort(all)
	return all[0], all[len(all)/2]
}

func (r *Report) row(name string) Row {
	for _, w := range r.Rows {
		if w.Name == name {
			return w
		}
	}
	return Row{}
}

// WriteText prints the table and the bar, and returns whether that is met.
func (r *Report) WriteText(w io.Writer) bool {
	crun, none, bridge := r.row(Crun), r.row(None), r.row(Bridge)
	fmt.Fprintf(w, "A container for one command on a machine (%s), %d shuffled rounds (ms; CPU of the whole machine; ratios to %s)\n", r.Accelerator, r.Rounds, Crun)
	fmt.Fprintf(w, "  %-32s %9s %9s %9s %9s   %s\n", "", "wall min", "wall med", "CPU min", "CPU med", "wall min/med, CPU min/med")
	for _, c := range r.Rows {
		fmt.Fprintf(w, "  %-32s %9.2f %9.2f %9.2f %9.2f   %.2f %.2f, %.2f %.2f\n", c.Name, c.WallMin, c.WallMed, c.CPUMin, c.CPUMed,
			c.WallMin/crun.WallMin, c.WallMed/crun.WallMed, c.CPUMin/crun.CPUMin, c.CPUMed/crun.CPUMed)
	}
	fmt.Fprintf(w, "  a network, bridge / none: %.2f %.2f, %.2f %.2f\n", bridge.WallMin/none.WallMin, bridge.WallMed/none.WallMed, bridge.CPUMin/none.CPUMin, bridge.CPUMed/none.CPUMed)
	own, met := r.row(OCIRuntime), true
	for _, b := range []struct {
		what       string
		ratio, bar float64
	}{
		{"wall median, oci-runtime run / crun run", own.WallMed / crun.WallMed, RuntimeBar},
		{"CPU median, oci-runtime run / crun run", own.CPUMed / crun.CPUMed, RuntimeCPUBar},
		{"wall median, --network none / crun run", none.WallMed / crun.WallMed, Bar},
	} {
		word := "met"
		if !(b.ratio > 0 && b.ratio <= b.bar) { // what was not measured is a miss
			word, met = "MISSED", false
		}
		fmt.Fprintf(w, "  %-42s %6.2f  bar %.1f  %s\n", b.what, b.ratio, b.bar, word)
	}
	return met
}

// WriteJSON prints the same for programs.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}
