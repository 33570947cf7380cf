package delta

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Report is everything that was measured. Sizes are bytes.
type Report struct {
	Full  Full     `json:"full"`
	Pairs []Result `json:"pairs"`
}

// Full is the full payload of one release.
type Full struct {
	Made
	RootImage   int64 `json:"root_image"` // bytes, without the verity tree
	BootProgram int64 `json:"boot_program"`
	Create      Usage `json:"create"`
	Apply       Usage `json:"apply"`
}

// Result is one pair.
type Result struct {
	Name    string `json:"name"`
	Title   string `json:"title"`
	Changed int64  `json:"changed"` // bytes of the files that are not as before
	Made
	Create Usage  `json:"create"`
	Apply  Usage  `json:"apply"`
	Peers  []Peer `json:"peers,omitempty"`
}

// Peer is another program's update of the root image.
type Peer struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	Create Usage  `json:"create"`
}

// RootPayload is what a payload of the root image alone has: the manifest, and the root image's blobs.
func (m Made) RootPayload() int64 { return m.Manifest + m.Root }

// A Bar is what a number is to be at most.
type Bar struct {
	What      string
	Got, Most float64
	Unit      string
}

// Fails reports whether the bar is missed and that is no matter of the host: sizes are the same everywhere, and memory nearly so. Times are
// reports, and so is the month with its new kernel, which is replaced whole.
func (b Bar) Fails() bool { return !b.Met() && b.Unit != "CPU s" && b.What != monthWithBoot }

const monthWithBoot = "month with boot program, of the full payload"

// Verdict is an error that names the bars which fail.
func (r *Report) Verdict() error {
	var missed []string
	for _, b := range r.Bars() {
		if b.Fails() {
			missed = append(missed, fmt.Sprintf("%s: %.2f %s, at most %.2f", b.What, b.Got, b.Unit, b.Most))
		}
	}
	if len(missed) == 0 {
		return nil
	}
	return fmt.Errorf("bars that are not met: %s", strings.Join(missed, "; "))
}

// Met reports whether the bar is met.
func (b Bar) Met() bool { return b.Got <= b.Most }

// The bars of the payload's design; applying is measured by what the design's image of 570 MB would take.
const designImage = 570e6

// Bars compares what was measured with what was aimed at.
func (r *Report) Bars() []Bar {
	f := r.Full
	raw := float64(f.RootImage + f.BootProgram)
	bars := []Bar{
		{"full payload, of root image and boot program", 100 * float64(f.Size) / raw, 25, "%"},
		{"full payload, of the root image alone", 100 * float64(f.RootPayload()) / float64(f.RootImage), 25, "%"},
	}
	bars = append(bars, applyBars("full payload", f.Apply, raw)...)
	for _, p := range r.Pairs {
		size := float64(p.Size)
		switch p.Name {
		case "openssl":
			bars = append(bars, Bar{"openssl", size / 1e3, 220, "KB"}, Bar{"openssl, of the full payload", 100 * size / float64(f.Size), 0.3, "%"})
		case "zlib":
			bars = append(bars, Bar{"zlib", size / 1e3, 12, "KB"})
		case "go", "go-shared":
			bars = append(bars, Bar{p.Name + ", for each 40 MB of changed programs", size / 1e3 / (float64(p.Changed) / 40e6), 140, "KB"})
		case "kernel":
			bars = append(bars, Bar{"kernel, root image", float64(p.RootPayload()) / 1e6, 2, "MB"})
		case "month":
			bars = append(bars, Bar{"month, root image, of the full payload's", 100 * float64(p.RootPayload()) / float64(f.RootPayload()), 7, "%"},
				Bar{monthWithBoot, 100 * size / float64(f.Size), 7, "%"})
		}
		bars = append(bars, Bar{p.Name + ", creating", p.Create.CPU, 60, "CPU s"})
		bars = append(bars, applyBars(p.Name, p.Apply, raw)...)
	}
	return bars
}

func applyBars(name string, u Usage, raw float64) []Bar {
	return []Bar{
		{name + ", applying, were it 570 MB", u.CPU * designImage / raw, 2.5, "CPU s"},
		{name + ", applying, memory", float64(u.Memory) / 1e6, 32, "MB"},
	}
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

// WriteText writes the tables for people.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	r.payloads(&b)
	r.peers(&b)
	b.WriteString("bars\n")
	for _, bar := range r.Bars() {
		met := "met"
		if !bar.Met() {
			met = "NOT MET"
		}
		fmt.Fprintf(&b, "  %-48s %10.2f %-6s at most %7.2f  %s\n", bar.What, bar.Got, bar.Unit, bar.Most, met)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) payloads(b *strings.Builder) {
	f := r.Full
	fmt.Fprintf(b, "Payloads; root image %.1f MB, boot program %.1f MB. Sizes in bytes, of them: manifest, root image, boot program.\n\n", float64(f.RootImage)/1e6, float64(f.BootProgram)/1e6)
	fmt.Fprintf(b, "%-10s %11s %8s %9s %11s %11s %9s %8s %8s %8s\n", "", "payload", "of full", "manifest", "root", "boot", "create s", "MB", "apply s", "MB")
	row := func(name string, m Made, create, apply Usage) {
		fmt.Fprintf(b, "%-10s %11d %7.3f%% %9d %11d %11d %9.1f %8.1f %8.2f %8.1f\n", name, m.Size, 100*float64(m.Size)/float64(f.Size), m.Manifest, m.Root, m.Boot,
			create.CPU, float64(create.Memory)/1e6, apply.CPU, float64(apply.Memory)/1e6)
	}
	row("full", f.Made, f.Create, f.Apply)
	for _, p := range r.Pairs {
		row(p.Name, p.Made, p.Create, p.Apply)
	}
	b.WriteByte('\n')
	for _, p := range r.Pairs {
		fmt.Fprintf(b, "%-10s %s; %.1f MB of files changed\n", p.Name, p.Title, float64(p.Changed)/1e6)
	}
	b.WriteByte('\n')
}

// peers prints what others make of the root images, and how many times a payload of the root image alone that is.
func (r *Report) peers(b *strings.Builder) {
	if len(r.Pairs) == 0 || len(r.Pairs[0].Peers) == 0 {
		return
	}
	fmt.Fprintf(b, "root image alone, against others\n%-10s %-24s %11s %8s %9s %8s\n", "", "", "bytes", "times", "create s", "MB")
	for _, p := range r.Pairs {
		fmt.Fprintf(b, "%-10s %-24s %11d %8s\n", p.Name, "payload", p.RootPayload(), "")
		for _, o := range p.Peers {
			fmt.Fprintf(b, "%-10s %-24s %11d %8.1f %9.1f %8.1f\n", "", o.Name, o.Size, float64(o.Size)/float64(p.RootPayload()), o.Create.CPU, float64(o.Create.Memory)/1e6)
		}
	}
	b.WriteByte('\n')
}
