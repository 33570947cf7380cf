// Package metrics is the update agent in numbers: Prometheus' text exposition format, version 0.0.4.
//
// The agent writes them to /run/proa/metrics/update.prom at each change, for the textfile collector of a node exporter, and gives them to
// whoever asks on the bus. Every family has HELP and TYPE, names and labels stay as they are once released:
//
//	proa_update_info{version,root_hash,channel}      1: what runs
//	proa_update_phase{phase}                         1 for the one the machine is in, 0 for the others
//	proa_update_target_info{version}                 1: what is installed, armed or tried; absent if nothing is
//	proa_update_trying                               1: this boot decides about what runs
//	proa_update_held                                 1: somebody holds every release back
//	proa_update_pinned_info{version}, proa_update_rolled_back_info{version}   1: orders of people; absent without
//	proa_update_quarantined_releases                 how many are not taken again
//	proa_update_last_check_timestamp_seconds, proa_update_last_success_timestamp_seconds   absent before the first
//	proa_update_checks_total, proa_update_failures_total{reason}, proa_update_fetched_bytes_total   since the machine was provisioned
//	proa_update_releases_total{event}                events of the history: armed, good, bad, refused ...
//	proa_update_gap_seconds{mode}                    how long the machine was away in its last reboot of that mode; absent before the first
//	proa_update_progress_ratio                       of the job that works; absent while none does
package metrics

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/proa-os/proa/update-engine/state"
)

// Input is what the numbers are made of.
type Input struct {
	Report   *state.Report
	History  []state.Entry
	Counters state.Counters
	Now      time.Time
}

// A writer keeps families together, as the format wants it.
type writer struct{ b strings.Builder }

func (w *writer) family(name, kind, help string, samples ...sample) {
	if len(samples) == 0 {
		return
	}
	fmt.Fprintf(&w.b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
	for _, s := range samples {
		w.b.WriteString(name)
		if len(s.labels) > 0 {
			w.b.WriteString("{" + strings.Join(s.labels, ",") + "}")
		}
		w.b.WriteString(" " + strconv.FormatFloat(s.value, 'g', -1, 64) + "\n")
	}
}

// A sample is a value and its labels.
type sample struct {
	labels []string
	value  float64
}

func value(v float64, labels ...string) sample {
	s := sample{value: v}
	for i := 0; i+1 < len(labels); i += 2 {
		escaped := strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`).Replace(strings.ToValidUTF8(labels[i+1], "?"))
		s.labels = append(s.labels, labels[i]+`="`+escaped+`"`)
	}
	return s
}

func flag(b bool) sample {
	if b {
		return value(1)
	}
	return value(0)
}

func info(version string) []sample {
	if version == "" {
		return nil
	}
	return []sample{value(1, "version", version)}
}

func at(t time.Time) []sample {
	if t.IsZero() {
		return nil
	}
	return []sample{value(float64(t.Unix()))}
}

// Text returns the exposition.
func Text(in Input) string {
	w := &writer{}
	r := in.Report
	w.family("proa_update_info", "gauge", "The running release.", value(1, "version", r.Running.Version, "root_hash", r.Running.Root.String(), "channel", r.Channel))
	w.family("proa_update_phase", "gauge", "The phase an update is in: 1 for that, 0 for the others.", phases(r.State.Phase)...)
	target := ""
	if r.State.Target != nil {
		target = r.State.Target.Version
	}
	w.family("proa_update_target_info", "gauge", "The release that is installed, armed or tried.", info(target)...)
	w.family("proa_update_trying", "gauge", "1 if this boot decides about the running release.", flag(r.Boot.Trying))
	orders(w, in)
	w.family("proa_update_quarantined_releases", "gauge", "Releases that failed and are not taken again.", value(float64(len(r.Quarantine))))
	if c := r.State.Check; c != nil {
		w.family("proa_update_last_check_timestamp_seconds", "gauge", "Time of the last look at the repository, whatever came of it.", at(c.Time)...)
	}
	w.family("proa_update_last_success_timestamp_seconds", "gauge", "Time of the last look at the repository that verified its metadata.", at(in.Counters.LastSuccess)...)
	counters(w, in)
	var gaps []sample
	for _, mode := range slices.Sorted(maps.Keys(r.Gaps)) {
		gaps = append(gaps, value(r.Gaps[mode], "mode", mode))
	}
	w.family("proa_update_gap_seconds", "gauge", "From the order to reboot to a healthy boot, the last time.", gaps...)
	if p := r.Progress; p != nil && p.Total > 0 {
		w.family("proa_update_progress_ratio", "gauge", "How far the job is that works.", value(float64(p.Done)/float64(p.Total)))
	}
	return w.b.String()
}

func phases(now state.Phase) []sample {
	if now == "" {
		now = state.Idle
	}
	var list []sample
	for _, p := range []state.Phase{state.Idle, state.Checking, state.Downloading, state.Writing, state.Armed, state.Rebooting, state.Trying, state.Good, state.Failed} {
		v := 0.0
		if p == now {
			v = 1
		}
		list = append(list, value(v, "phase", string(p)))
	}
	return list
}

func orders(w *writer, in Input) {
	o := in.Report.Orders
	pinned, from := "", ""
	if o.Pin != nil {
		pinned = o.Pin.Version
	}
	if o.Back != nil {
		from = o.Back.From.Version
	}
	w.family("proa_update_held", "gauge", "1 if somebody holds every release back.", flag(o.Held(in.Now)))
	w.family("proa_update_pinned_info", "gauge", "The only release that is taken.", info(pinned)...)
	w.family("proa_update_rolled_back_info", "gauge", "The release that was left by hand and is not taken again.", info(from)...)
}

func counters(w *writer, in Input) {
	c := in.Counters
	w.family("proa_update_checks_total", "counter", "Looks at the repository.", value(float64(c.Checks)))
	var failures []sample
	for _, r := range state.Reasons() {
		failures = append(failures, value(float64(c.Failures[string(r)]), "reason", string(r)))
	}
	w.family("proa_update_failures_total", "counter", "Checks, installations and tries that failed.", failures...)
	w.family("proa_update_fetched_bytes_total", "counter", "Bytes fetched from repositories.", value(float64(c.Fetched)))
	events := map[string]float64{string(state.EventArmed): 0, string(state.EventGood): 0, string(state.EventBad): 0, string(state.EventRefused): 0, string(state.EventRolledBack): 0}
	for _, e := range in.History {
		events[string(e.Event)]++
	}
	var names []string
	for n := range events {
		names = append(names, n)
	}
	slices.Sort(names)
	var list []sample
	for _, n := range names {
		list = append(list, value(events[n], "event", n))
	}
	w.family("proa_update_releases_total", "counter", "What became of releases.", list...)
}
