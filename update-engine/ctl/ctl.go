// Package ctl is what updatectl prints: the update agent's answers as text or JSON, and progress lines.
package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/proa-os/proa/update-engine/state"
)

// Usage is the short help.
const Usage = `usage: updatectl COMMAND [--json]

  status      what runs, what happens, what is quarantined
  why         in one line: why this machine is or is not updated
  check       look for a newer release (root)
  apply       install the channel's release and reboot into it (root)
              --no-reboot  only install and arm it; --quiet  no progress lines
  history     what became of releases on this machine

The repository is set in /etc/proa/update/config.json. See also: journalctl -u update-engine -u proa-health`

// ErrUsage asks for Usage.
var ErrUsage = errors.New("wrong command line")

// Options are the command line.
type Options struct {
	Command               string
	JSON, NoReboot, Quiet bool
	Out, Progress         io.Writer
}

// An Agent answers: bus.Client.
type Agent interface {
	Check(context.Context) (*state.Result, error)
	Apply(ctx context.Context, reboot bool, progress func(stage string, done, total uint64)) (*state.Result, error)
	Status(context.Context) (*state.Report, error)
	History(context.Context) ([]state.Entry, error)
}

// Run does one command.
func Run(ctx context.Context, a Agent, o Options) error {
	switch o.Command {
	case "status", "why":
		r, err := a.Status(ctx)
		if err != nil {
			return err
		}
		if o.Command == "why" && !o.JSON {
			_, err = fmt.Fprintln(o.Out, r.Why)
			return err
		}
		return show(o, r, func() string { return statusText(r) })
	case "check":
		r, err := a.Check(ctx)
		if err != nil {
			return err
		}
		return show(o, r, func() string { return r.Text })
	case "apply":
		return apply(ctx, a, o)
	case "history":
		h, err := a.History(ctx)
		if err != nil {
			return err
		}
		return show(o, h, func() string { return historyText(h) })
	}
	return ErrUsage
}

func apply(ctx context.Context, a Agent, o Options) error {
	progress := func(string, uint64, uint64) {}
	if !o.Quiet {
		p := &lines{w: o.Progress, start: time.Now()}
		progress = p.show
	}
	r, err := a.Apply(ctx, !o.NoReboot, progress)
	if err != nil {
		return err
	}
	return show(o, r, func() string { return r.Text })
}

func show(o Options, v any, text func() string) error {
	if !o.JSON {
		_, err := fmt.Fprintln(o.Out, text())
		return err
	}
	e := json.NewEncoder(o.Out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func statusText(r *state.Report) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(key, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", key, fmt.Sprintf(format, args...)) }
	row("running", "%s (root hash %.12s...)", r.Running.Version, r.Running.Root)
	phase := r.State.Phase
	if phase == "" {
		phase = state.Idle
	}
	row("phase", "%s", phase)
	if r.State.Target != nil {
		row("target", "%s", r.State.Target.Version)
	}
	if r.State.Error != "" {
		row("error", "%s", r.State.Error)
	}
	if r.Boot.File != "" {
		row("boot program", "%s", r.Boot.File)
	}
	if r.Boot.WayBack != "" {
		row("way back", "%s", r.Boot.WayBack)
	}
	server := r.Server
	if server == "" {
		server = "none"
	}
	row("repository", "%s, channel %s", server, r.Channel)
	if c := r.State.Check; c != nil {
		row("last check", "%s", c.Time.Format(time.RFC3339))
	}
	for _, q := range r.Quarantine {
		row("quarantined", "%s: %s", q.Version, q.Reason)
	}
	row("why", "%s", r.Why)
	w.Flush()
	return strings.TrimSuffix(b.String(), "\n")
}

func historyText(h []state.Entry) string {
	if len(h) == 0 {
		return "no updates yet"
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, e := range h {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", e.Time.Format("2006-01-02 15:04:05"), e.Version, e.Event, e.Detail)
	}
	w.Flush()
	return strings.TrimRight(b.String(), " \n")
}

// lines prints a line for each stage and each tenth of it: it reads well on a terminal, over ssh and in a log.
type lines struct {
	w     io.Writer
	start time.Time
	stage string
	tenth uint64
}

func (l *lines) show(stage string, done, total uint64) {
	tenth := uint64(0)
	if total > 0 {
		tenth = done * 10 / total
	}
	if stage == l.stage && tenth == l.tenth {
		return
	}
	l.stage, l.tenth = stage, tenth
	text := map[string]string{"check": "checking the repository", "write": "writing the passive slot", "reboot": "rebooting"}[stage]
	if text == "" {
		text = stage
	}
	if total > 0 {
		text += fmt.Sprintf(" %3d %% of %.1f MB", done*100/total, float64(total)/1e6)
	}
	fmt.Fprintf(l.w, "%5.1f s  %s\n", time.Since(l.start).Seconds(), text)
}
