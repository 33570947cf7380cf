package ctl

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/proa-os/proa/update-engine/state"
)

// StatusText is what updatectl status prints of a report.
func StatusText(r *state.Report, now time.Time) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(key, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", key, fmt.Sprintf(format, args...)) }
	row("running", "%s (root hash %.12s...)", r.Running.Version, r.Running.Root)
	phase := r.State.Phase
	if phase == "" {
		phase = state.Idle
	}
	row("phase", "%s", phase)
	if p := r.Progress; p != nil {
		row("progress", "%s", progressText(*p))
	}
	if r.State.Target != nil {
		row("target", "%s", r.State.Target.Version)
	}
	if r.State.Error != "" {
		row("error", "%s", r.State.Error)
	}
	if r.Boot.File != "" {
		row("boot program", "%s", r.Boot.File)
	}
	if r.Boot.Next != "" && r.Boot.Next != r.Boot.File {
		row("boots next", "%s", r.Boot.Next)
	}
	if r.Boot.WayBack != "" {
		row("way back", "%s", r.Boot.WayBack)
	}
	orderRows(r, now, row)
	server := r.Server
	if server == "" {
		server = "none"
	}
	row("repository", "%s, channel %s", server, r.Channel)
	if c := r.State.Check; c != nil {
		row("last check", "%s", c.Time.Format(time.RFC3339))
	}
	for _, l := range r.State.Liars {
		row("wrong bytes", "%s, at %s, of the %s of %s: %s", l.Server, l.Time.Format(time.RFC3339), l.Payload, l.Version, l.Error)
	}
	for _, q := range r.Quarantine {
		row("quarantined", "%s: %s", q.Version, q.Reason)
	}
	row("why", "%s", r.Why)
	w.Flush()
	return strings.TrimSuffix(b.String(), "\n")
}

func orderRows(r *state.Report, now time.Time, row func(key, format string, args ...any)) {
	o := r.Orders
	if o.Held(now) {
		row("held", "%s", o.Forbid("", now))
	}
	if o.Pin != nil {
		row("pinned", "to %s %s", o.Pin.Version, o.Pin.Given)
	}
	if o.Back != nil {
		row("rolled back", "from %s %s", o.Back.From.Version, o.Back.Given)
	}
}

func historyText(h []state.Entry) string {
	if len(h) == 0 {
		return "no updates yet"
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, e := range h {
		by := ""
		if e.By != "" {
			by = "by " + e.By
		}
		detail := strings.Join(strings.Fields(by+" "+e.Detail), " ")
		if by != "" && e.Detail != "" {
			detail = by + ": " + e.Detail
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", e.Time.Format("2006-01-02 15:04:05"), e.Version, e.Event, detail)
	}
	w.Flush()
	return strings.TrimRight(b.String(), " \n")
}

// bytesText is a number of bytes for people.
func bytesText(n int64) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%d bytes", n)
	case n < 1_000_000:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}

// stageText names a stage in a sentence.
func stageText(stage string) string {
	switch stage {
	case "check":
		return "checking the repository"
	case "resume":
		return "reading what an interrupted update has left"
	case "write":
		return "writing the passive slot"
	case "write-delta":
		return "writing the passive slot from the delta"
	case "write-full":
		return "writing the passive slot from the full payload"
	case "verify":
		return "reading the passive slot back"
	case "read":
		return "reading the other slot"
	case "reboot":
		return "rebooting"
	}
	return stage
}

func progressText(p state.Progress) string {
	text := stageText(p.Stage)
	if p.Total > 0 {
		text += fmt.Sprintf(" %3d %% of %s", p.Done*100/p.Total, bytesText(p.Total))
	}
	if p.Rate > 0 {
		text += fmt.Sprintf(", %s/s", bytesText(p.Rate))
	}
	if p.Left > 0 {
		text += fmt.Sprintf(", %s left", time.Duration(p.Left)*time.Second)
	}
	return text
}

// lines prints a line for each stage and each tenth of it: it reads well on a terminal, over ssh and in a log.
type lines struct {
	w     io.Writer
	now   func() time.Time
	start time.Time
	stage string
	tenth uint64
	since time.Time // begin of the stage
	first uint64    // done then
}

func (l *lines) show(stage string, done, total uint64) {
	tenth := uint64(0)
	if total > 0 {
		tenth = done * 10 / total
	}
	if stage == l.stage && tenth == l.tenth {
		return
	}
	now := l.now()
	if stage != l.stage {
		l.since, l.first = now, done
	}
	l.stage, l.tenth = stage, tenth
	p := state.Progress{Stage: stage, Done: int64(done), Total: int64(total)}
	if took := now.Sub(l.since).Seconds(); took > 0 && done > l.first {
		p.Rate = int64(float64(done-l.first) / took)
	}
	if p.Rate > 0 && total > done {
		p.Left = int64(total-done) / p.Rate
	}
	fmt.Fprintf(l.w, "%5.1f s  %s\n", now.Sub(l.start).Seconds(), progressText(p))
}
