package pull

import (
	"encoding/json"
	"fmt"
	"io"
)

// A Report is what was measured.
type Report struct {
	Rounds int   `json:"rounds"`
	Layers int   `json:"layers"`
	Packed int64 `json:"bytes_compressed"`
	Plain  int64 `json:"bytes_archives"`
	Rows   []Row `json:"rows"`
}

// A Row is one puller. Times are seconds.
type Row struct {
	Name    string  `json:"name"`
	Version string  `json:"version"`
	WallMin float64 `json:"wall_min"`
	WallMed float64 `json:"wall_med"`
	CPUMin  float64 `json:"cpu_min"`
	CPUMed  float64 `json:"cpu_med"`
}

// WriteText prints the table and the bars. It returns whether the bars are met.
func (r *Report) WriteText(w io.Writer) bool {
	fmt.Fprintf(w, "\npull of %d layers of gzip, %.1f MB, %.1f MB as archives; %d shuffled rounds (s; ratios are containerctl / other)\n",
		r.Layers, float64(r.Packed)/1e6, float64(r.Plain)/1e6, r.Rounds)
	fmt.Fprintf(w, "  %-14s %9s %9s %9s %9s %9s   %s\n", "", "wall min", "wall med", "CPU min", "CPU med", "MB/CPU-s", "wall med, CPU min/med")
	var own Row
	for _, row := range r.Rows {
		if row.Name == "containerctl" {
			own = row
		}
	}
	for _, row := range r.Rows {
		fmt.Fprintf(w, "  %-14s %9.2f %9.2f %9.2f %9.2f %9.0f", row.Name, row.WallMin, row.WallMed, row.CPUMin, row.CPUMed, float64(r.Plain)/1e6/row.CPUMed)
		if row.Name != own.Name {
			fmt.Fprintf(w, "   %.2f, %.2f %.2f", own.WallMed/row.WallMed, own.CPUMin/row.CPUMin, own.CPUMed/row.CPUMed)
		}
		fmt.Fprintf(w, "   version %s\n", row.Version)
	}
	met := true
	for name, limit := range map[string]float64{"containerd": BarContainerd, "podman": BarPodman} {
		found := false
		for _, row := range r.Rows {
			if row.Name != name {
				continue
			}
			found = true
			word := "met"
			if own.CPUMed <= 0 || own.CPUMed > limit*row.CPUMed {
				word, met = "MISSED", false
			}
			fmt.Fprintf(w, "  CPU median / %-20s %6.2f  bar %.2f  %s\n", name, own.CPUMed/row.CPUMed, limit, word)
		}
		if !found {
			met = false
			fmt.Fprintf(w, "  not measured: %s\n", name)
		}
	}
	return met
}

// WriteJSON prints the same for programs.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}
