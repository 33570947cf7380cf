package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/command"
	"github.com/proa-os/proa/update-engine/bus"
	"github.com/proa-os/proa/update-engine/state"
)

// The client on the bus is what updatectl talks to.
var _ Agent = (*bus.Client)(nil)

type fake struct {
	rebooted bool
	busy     int // how often it says so
	did      []string
}

func (f *fake) Check(context.Context) (*state.Result, error) {
	if f.did != nil {
		return &state.Result{Offered: &state.Release{Version: "1.0.1"}, Size: 215_000, Payload: "delta", Full: 62_300_000, Text: "runs 1.0.0: release 1.0.1 is there"}, nil
	}
	return nil, errors.New("refuse timestamp.json: expired")
}

func (f *fake) Apply(_ context.Context, reboot bool, progress func(string, uint64, uint64)) (*state.Result, error) {
	if f.busy > 0 {
		f.busy--
		return nil, state.Busy{}
	}
	f.rebooted = reboot
	progress("check", 0, 0)
	for n := uint64(0); n <= 100; n++ {
		progress("write", n*1e6, 100e6)
	}
	return &state.Result{Armed: true, Text: "release 1.0.1 is armed: the next boot tries it"}, nil
}

func (f *fake) order(args ...any) (*state.Result, error) {
	f.did = append(f.did, strings.TrimSuffix(fmt.Sprintln(args...), "\n"))
	return &state.Result{Text: "done"}, nil
}

func (f *fake) Rollback(_ context.Context, version, reason string, reboot bool) (*state.Result, error) {
	return f.order("Rollback", version, reason, reboot)
}
func (f *fake) Order(_ context.Context, method, reason string) (*state.Result, error) {
	return f.order(method, reason)
}
func (f *fake) OrderVersion(_ context.Context, method, version, reason string) (*state.Result, error) {
	return f.order(method, version, reason)
}
func (f *fake) Hold(_ context.Context, until time.Time, reason string) (*state.Result, error) {
	return f.order("Hold", until.Format(time.RFC3339), reason)
}
func (f *fake) Metrics(context.Context) (string, error) { return "proa_update_trying 0\n", nil }

func (f *fake) Status(context.Context) (*state.Report, error) {
	r := &state.Report{
		Running: state.Release{Version: "1.0.0"}, Boot: state.Boot{File: "proa_1.0.0.efi", Next: "proa_1.0.1+3.efi", WayBack: "proa_0.9.0.efi"},
		Quarantine: state.Quarantine{{Release: state.Release{Version: "1.0.2"}, Reason: "web: not running"}},
		Orders:     state.Orders{Pin: &state.Pin{Version: "1.0.0", Given: state.Given{By: "core", Time: noon(), Reason: "audit"}}},
		Channel:    "stable", Server: "http://x/", Why: "because",
	}
	if f.busy > 0 || f.did == nil {
		r.Progress = &state.Progress{Stage: "write", Done: 25e6, Total: 100e6, Rate: 5e6, Left: 15}
	}
	return r, nil
}

func (f *fake) History(context.Context) ([]state.Entry, error) {
	return []state.Entry{
		{Time: noon(), Event: state.EventBad, Release: state.Release{Version: "1.0.2"}, Detail: "web: not running"},
		{Time: noon(), Event: state.EventRolledBack, Release: state.Release{Version: "1.0.1"}, By: "core", Detail: "to 1.0.0: too slow"},
		{Time: noon(), Event: state.EventHeld, Release: state.Release{Version: "1.0.0"}, By: "core"},
	}, nil
}

func noon() time.Time { return time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC) }

func run(t *testing.T, f *fake, args ...string) (out, progress string, err error) {
	t.Helper()
	var b, p bytes.Buffer
	at := noon()
	now := func() time.Time { at = at.Add(time.Second); return at }
	err = Program(Terminal{Connect: func() (Agent, error) { return f, nil }, Out: &b, Progress: &p, Now: now}).Run(t.Context(), &b, args)
	return b.String(), p.String(), err
}

func TestAnswers(t *testing.T) {
	for command, want := range map[string][]string{
		"why": {"because\n"},
		"status": {"running       1.0.0", "phase         idle", "progress      writing the passive slot  25 % of 100.0 MB, 5.0 MB/s, 15s left", "boots next    proa_1.0.1+3.efi",
			"way back      proa_0.9.0.efi", "pinned        to 1.0.0 by core on 2026-01-01 12:00 (audit)", "quarantined   1.0.2: web: not running", "why           because"},
		"history":         {"2026-01-01 12:00:00  1.0.2  bad          web: not running\n", "1.0.1  rolled back  by core: to 1.0.0: too slow\n", "held         by core\n"},
		"apply":           {"release 1.0.1 is armed"},
		"quarantine list": {"1.0.2  ", "web: not running"},
	} {
		args := strings.Fields(command)
		out, _, err := run(t, &fake{}, args...)
		for _, w := range want {
			if err != nil || !strings.Contains(out+"\n", w) {
				t.Errorf("%s: got %q, %v, want %q", command, out, err, w)
			}
		}
		if out, _, err := run(t, &fake{}, append(args, "--json")...); err != nil || !json.Valid([]byte(out)) {
			t.Errorf("%s --json: %q, %v", command, out, err)
		}
	}
	if out, _, err := run(t, &fake{}, "metrics"); err != nil || out != "proa_update_trying 0\n" {
		t.Errorf("metrics: %q, %v", out, err)
	}
	if _, _, err := run(t, &fake{}, "check"); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("check: %v", err)
	}
	if out, _, err := run(t, &fake{did: []string{}}, "check"); err != nil || out != "runs 1.0.0: release 1.0.1 is there\n  to fetch: 215.0 kB (delta, in place of 62.3 MB)\n" {
		t.Errorf("check: %q, %v", out, err)
	}
}

// Every order reaches the agent with all that was said.
func TestOrders(t *testing.T) {
	for line, want := range map[string]string{
		"rollback":                               "Rollback   true",
		"rollback 1.0.0 --no-reboot --reason x":  "Rollback 1.0.0 x false",
		"resume":                                 "Resume ",
		"hold":                                   "Hold 0001-01-01T00:00:00Z ",
		"hold --until 2026-01-31 year end":       "Hold 2026-01-31T00:00:00Z year end",
		"hold --until 3d":                        "Hold 2026-01-04T12:00:01Z ",
		"hold --until 8h":                        "Hold 2026-01-01T20:00:01Z ",
		"hold --until 2026-01-31T06:00:00+01:00": "Hold 2026-01-31T06:00:00+01:00 ",
		"unhold --reason over":                   "Unhold over",
		"pin":                                    "Pin  ",
		"pin 1.0.1 --reason certified":           "Pin 1.0.1 certified",
		"unpin":                                  "Unpin ",
		"quarantine clear 1.0.2":                 "ClearQuarantine 1.0.2 ",
	} {
		f := &fake{did: []string{}}
		if out, _, err := run(t, f, strings.Fields(line)...); err != nil || len(f.did) != 1 || !strings.HasPrefix(f.did[0]+".", want) || out != "done\n" {
			t.Errorf("%s: did %q, printed %q, %v, want %q", line, f.did, out, err, want)
		}
	}
	if _, progress, _ := run(t, &fake{did: []string{}}, "rollback"); progress != "runs 1.0.0 (proa_1.0.0.efi), the other slot holds proa_0.9.0.efi; verifying it\n" {
		t.Errorf("before a rollback: %q", progress)
	}
	for _, line := range []string{"hold --until yesterday", "hold --until -3d", "hold --until 0d", "quarantine clear", "quarantine empty"} {
		f := &fake{did: []string{}}
		if _, _, err := run(t, f, strings.Fields(line)...); err == nil || len(f.did) != 0 {
			t.Errorf("%s: did %q, %v", line, f.did, err)
		}
	}
}

func TestProgressLines(t *testing.T) {
	_, progress, err := run(t, &fake{}, "apply")
	lines := strings.Split(strings.TrimSpace(progress), "\n")
	if err != nil || len(lines) != 12 || !strings.Contains(lines[0], "checking") || !strings.Contains(lines[11], "writing the passive slot 100 % of 100.0 MB, ") || !strings.HasSuffix(lines[11], "MB/s") || !strings.HasSuffix(lines[3], "s left") {
		t.Errorf("got %d lines, %v:\n%s", len(lines), err, progress)
	}
	if _, progress, _ := run(t, &fake{}, "apply", "--quiet"); progress != "" {
		t.Errorf("quiet: %q", progress)
	}
}

// The timer was first: its job is followed, then ours is done.
func TestApplyWhileBusy(t *testing.T) {
	f := &fake{busy: 1, did: []string{}}
	out, progress, err := run(t, f, "apply", "--no-reboot")
	if err != nil || !strings.Contains(out, "is armed") || !strings.Contains(progress, "another job is under way") || f.rebooted {
		t.Errorf("got %q, %v, progress:\n%s", out, err, progress)
	}
}

// Each command has a whole manual page, and a wrong command line says so.
func TestPages(t *testing.T) {
	for _, c := range Program(Terminal{}).All() {
		page, _, err := run(t, &fake{}, "help", c.Name)
		for _, want := range []string{"NAME\n", "SYNOPSIS\n", "DESCRIPTION\n", "EXIT STATUS\n", "FILES\n"} {
			if err != nil || !strings.Contains(page, want) {
				t.Errorf("%s: %v, no %q", c.Name, err, want)
			}
		}
		for line := range strings.Lines(page) {
			if len(line) > command.Width+1 {
				t.Errorf("%s: a line of %d characters: %s", c.Name, len(line), line)
			}
		}
	}
	var usage *command.WrongUsage
	for _, line := range []string{"chekc", "status more", "rollback 1 2", "apply --reboot"} {
		if _, _, err := run(t, &fake{}, strings.Fields(line)...); !errors.As(err, &usage) {
			t.Errorf("%s: %v", line, err)
		}
	}
}
