package start

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"
)

// A Report is what was measured.
type Report struct {
	Rounds   int       `json:"rounds"`
	Size     float64   `json:"size_mb"` // of oci-runtime
	Missing  []string  `json:"missing,omitempty"`
	Profiles []Profile `json:"profiles"`
}

// A Profile is one bundle.
type Profile struct {
	Name    string   `json:"name"`
	Rows    []Row    `json:"rows"`
	LeftOut []string `json:"left_out,omitempty"` // who could not run it, and why
}

// A Row is one runtime. Times are milliseconds.
type Row struct {
	Name    string  `json:"name"`
	WallMin float64 `json:"wall_min"`
	WallMed float64 `json:"wall_med"`
	CPUMin  float64 `json:"cpu_min"`
	CPUMed  float64 `json:"cpu_med"`
	RSS     float64 `json:"peak_rss_mb"`
	Version string  `json:"version,omitempty"`
	Size    float64 `json:"size_mb,omitempty"`
}

func newRow(name string, s []sample, rss float64) Row {
	stat := func(of func(sample) time.Duration) (low, mid float64) {
		var all []time.Duration
		for _, v := range s {
			all = append(all, of(v))
		}
		slices.Sort(all)
		ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }
		return ms(all[0]), ms(all[len(all)/2])
	}
	r := Row{Name: name, RSS: rss}
	r.WallMin, r.WallMed = stat(func(v sample) time.Duration { return v.wall })
	r.CPUMin, r.CPUMed = stat(func(v sample) time.Duration { return v.cpu })
	return r
}

func (p *Profile) row(name string) *Row {
	for i := range p.Rows {
		if p.Rows[i].Name == name {
			return &p.Rows[i]
		}
	}
	return nil
}

// WriteText prints tables and the bars. It returns whether all bars that could be measured are met.
func (r *Report) WriteText(w io.Writer) bool {
	met := true
	bar := func(what string, got, limit float64) {
		word := "met"
		if got > limit {
			word, met = "MISSED", false
		}
		fmt.Fprintf(w, "  %-34s %6.2f  bar %.1f  %s\n", what, got, limit, word)
	}
	for _, p := range r.Profiles {
		fmt.Fprintf(w, "\nprofile %s, %d shuffled rounds (ms; ratios are oci-runtime / other)\n", p.Name, r.Rounds)
		fmt.Fprintf(w, "  %-12s %9s %9s %9s %9s %8s   %s\n", "", "wall min", "wall med", "CPU min", "CPU med", "RSS MB", "wall min/med, CPU min/med")
		own := p.row("oci-runtime")
		for _, c := range p.Rows {
			fmt.Fprintf(w, "  %-12s %9.2f %9.2f %9.2f %9.2f %8.1f", c.Name, c.WallMin, c.WallMed, c.CPUMin, c.CPUMed, c.RSS)
			if own != nil && c.Name != own.Name {
				fmt.Fprintf(w, "   %.2f %.2f, %.2f %.2f", own.WallMin/c.WallMin, own.WallMed/c.WallMed, own.CPUMin/c.CPUMin, own.CPUMed/c.CPUMed)
			}
			if c.Version != "" {
				fmt.Fprintf(w, "   version %s", c.Version)
			}
			if c.Size > 0 {
				fmt.Fprintf(w, ", %.1f MB", c.Size)
			}
			fmt.Fprintln(w)
		}
		for _, l := range p.LeftOut {
			fmt.Fprintf(w, "  left out: %s\n", l)
		}
		if own == nil {
			met = false
			continue
		}
		if crun := p.row("crun"); crun != nil {
			bar("wall median / crun", own.WallMed/crun.WallMed, BarWall)
			bar("CPU median / crun", own.CPUMed/crun.CPUMed, BarCPU)
		}
		bar("peak RSS, MB", own.RSS, BarRSS)
	}
	bar("program, MB", r.Size, BarSize)
	for _, m := range r.Missing {
		fmt.Fprintf(w, "  not measured: %s\n", m)
	}
	return met
}

// WriteJSON prints the same for programs.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}
