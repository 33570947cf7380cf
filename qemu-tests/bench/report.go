package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// slowestUnits is how many units a boot remembers.
const slowestUnits = 10

// Report is everything that was measured. All times are seconds.
type Report struct {
	Accelerator string   `json:"accelerator"` // kvm or tcg
	Aim         float64  `json:"aim"`         // for the ratio of kernel to multi-user; 0 if there is none
	Rounds      int      `json:"rounds"`
	Systems     []System `json:"systems"` // Proa, and Debian or another release

	FirstBoots *FirstBoots `json:"first_boots,omitempty"`
}

// System is one of the machines.
type System struct {
	Name  string `json:"name"`
	Title string `json:"title"`
	First Boot   `json:"first_boot"` // makes state and keys; not compared
	Boots []Boot `json:"boots"`
}

// Boot is one boot, from power on to multi-user.
type Boot struct {
	Phases
	Wall    float64 `json:"wall"` // on the host's clock, power on to multi-user
	CPU     CPU     `json:"qemu_cpu"`
	Slowest []Unit  `json:"slowest_units"`
}

// Phases are the parts of a boot: Firmware and Loader on the host's clock, the others on the guest's.
type Phases struct {
	Firmware  float64 `json:"firmware"`
	Loader    float64 `json:"loader"`
	Kernel    float64 `json:"kernel"`
	Initramfs float64 `json:"initramfs"`
	Userspace float64 `json:"userspace"`
}

// ToMultiUser is the time from kernel start to multi-user.target.
func (p Phases) ToMultiUser() float64 { return p.Kernel + p.Initramfs + p.Userspace }

// CPU is the CPU time of QEMU in the phases.
type CPU struct {
	Firmware  float64 `json:"firmware"`
	Loader    float64 `json:"loader"`
	Kernel    float64 `json:"kernel"`
	Initramfs float64 `json:"initramfs"`
	Userspace float64 `json:"userspace"`
}

// ToMultiUser is the CPU time from kernel start to multi-user.target.
func (c CPU) ToMultiUser() float64 { return c.Kernel + c.Initramfs + c.Userspace }

// Unit is a unit of systemd and how long it took to start.
type Unit struct {
	Name    string  `json:"name"`
	Begin   float64 `json:"begin"` // since the kernel's start
	Seconds float64 `json:"seconds"`
}

// A measure is a row of the table.
type row struct {
	name string
	of   func(Boot) float64
}

// rows are the table's, those on the clock and those of CPU time.
func rows() (clock, cpu []row) {
	return []row{
			{"firmware", func(b Boot) float64 { return b.Firmware }},
			{"loader", func(b Boot) float64 { return b.Loader }},
			{"kernel", func(b Boot) float64 { return b.Kernel }},
			{"initramfs", func(b Boot) float64 { return b.Initramfs }},
			{"userspace", func(b Boot) float64 { return b.Userspace }},
			{toMultiUser, func(b Boot) float64 { return b.ToMultiUser() }},
			{"power on to multi-user", func(b Boot) float64 { return b.Wall }},
		}, []row{
			{"firmware", func(b Boot) float64 { return b.CPU.Firmware }},
			{"loader", func(b Boot) float64 { return b.CPU.Loader }},
			{"kernel", func(b Boot) float64 { return b.CPU.Kernel }},
			{"initramfs", func(b Boot) float64 { return b.CPU.Initramfs }},
			{"userspace", func(b Boot) float64 { return b.CPU.Userspace }},
			{toMultiUser, func(b Boot) float64 { return b.CPU.ToMultiUser() }},
		}
}

const toMultiUser = "kernel to multi-user"

// least and median are of a row over a system's later boots.
func (s System) least(of func(Boot) float64) float64 { return s.sorted(of)[0] }
func (s System) median(of func(Boot) float64) float64 {
	v := s.sorted(of)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

func (s System) sorted(of func(Boot) float64) []float64 {
	v := make([]float64, len(s.Boots))
	for i, b := range s.Boots {
		v[i] = of(b)
	}
	slices.Sort(v)
	return v
}

// Ratio is Proa's least time from kernel start to multi-user, divided by Debian's.
func (r *Report) Ratio() float64 { return r.ratio(func(b Boot) float64 { return b.ToMultiUser() }) }

func (r *Report) ratio(of func(Boot) float64) float64 {
	return r.Systems[0].least(of) / r.Systems[1].least(of)
}

// WriteJSON writes all of it.
func (r *Report) WriteJSON(w io.Writer) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// WriteText writes the table for people.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	titles := make([]string, len(r.Systems))
	for i, s := range r.Systems {
		titles[i] = s.Title
	}
	fmt.Fprintf(&b, "Boot times under %s, in seconds: %s.\n", strings.ToUpper(r.Accelerator), strings.Join(titles, " against "))
	fmt.Fprintf(&b, "Least and median of %d later boots, in turn; the first boot, which makes state and keys, apart.\n\n", r.Rounds)
	clock, cpu := rows()
	r.table(&b, "on the clock", clock)
	r.table(&b, "CPU time of QEMU", cpu)
	r.slowest(&b)
	fmt.Fprintf(&b, "Kernel to multi-user: %.2f of the time of %s (CPU time: %.2f).\n",
		r.Ratio(), r.Systems[1].Title, r.ratio(func(b Boot) float64 { return b.CPU.ToMultiUser() }))
	switch {
	case r.Aim == 0:
	case r.Ratio() > r.Aim:
		fmt.Fprintf(&b, "The aim, at most %.2f, is not reached.\n", r.Aim)
	default:
		fmt.Fprintf(&b, "The aim, at most %.2f, is reached.\n", r.Aim)
	}
	if r.FirstBoots != nil {
		b.WriteString("\n" + r.FirstBoots.Text())
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) table(b *strings.Builder, title string, rows []row) {
	fmt.Fprintf(b, "%-24s", title)
	for _, s := range r.Systems {
		fmt.Fprintf(b, " %-24s", s.Name)
	}
	fmt.Fprintf(b, " %s/%s\n%24s", r.Systems[0].Name, r.Systems[1].Name, "")
	for range r.Systems {
		fmt.Fprintf(b, " %7s %7s %7s ", "least", "median", "first")
	}
	fmt.Fprintf(b, " %7s %7s\n", "least", "median")
	for _, row := range rows {
		fmt.Fprintf(b, "%-24s", row.name)
		for _, s := range r.Systems {
			fmt.Fprintf(b, " %7.2f %7.2f %7.2f ", s.least(row.of), s.median(row.of), row.of(s.First))
		}
		fmt.Fprintf(b, " %s %s\n", quotient(r.Systems[0].least(row.of), r.Systems[1].least(row.of)),
			quotient(r.Systems[0].median(row.of), r.Systems[1].median(row.of)))
	}
	b.WriteByte('\n')
}

// quotient is a/b for the table; nothing can be said of a phase that took no time.
func quotient(a, b float64) string {
	if a == 0 || b == 0 {
		return fmt.Sprintf("%7s", "-")
	}
	return fmt.Sprintf("%7.2f", a/b)
}

// slowest puts the slowest units of each machine's fastest boot side by side.
func (r *Report) slowest(b *strings.Builder) {
	fmt.Fprintf(b, "slowest units of the fastest boot, seconds to start\n")
	columns := make([][]Unit, len(r.Systems))
	for i, s := range r.Systems {
		columns[i] = slices.MinFunc(s.Boots, func(a, b Boot) int {
			if a.ToMultiUser() < b.ToMultiUser() {
				return -1
			}
			return 1
		}).Slowest
	}
	cell := func(units []Unit, i int) string {
		if i >= len(units) {
			return ""
		}
		return fmt.Sprintf("%6.2f %s", units[i].Seconds, units[i].Name)
	}
	for i := range slowestUnits {
		var line strings.Builder
		for _, units := range columns {
			fmt.Fprintf(&line, "%-54s", cell(units, i))
		}
		if text := strings.TrimRight(line.String(), " "); text != "" {
			fmt.Fprintf(b, "  %s\n", text)
		}
	}
	b.WriteByte('\n')
}
