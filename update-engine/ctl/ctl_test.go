package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/update-engine/state"
)

type fake struct{ rebooted bool }

func (f *fake) Check(context.Context) (*state.Result, error) {
	return nil, errors.New("refuse timestamp.json: expired")
}

func (f *fake) Apply(_ context.Context, reboot bool, progress func(string, uint64, uint64)) (*state.Result, error) {
	f.rebooted = reboot
	progress("check", 0, 0)
	for n := uint64(0); n <= 100; n++ {
		progress("write", n*1e6, 100e6)
	}
	return &state.Result{Armed: true, Text: "release 1.0.1 is armed: the next boot tries it"}, nil
}

func (f *fake) Status(context.Context) (*state.Report, error) {
	return &state.Report{
		Running: state.Release{Version: "1.0.0"}, Boot: state.Boot{File: "proa_1.0.0.efi", WayBack: "proa_0.9.0.efi"},
		Quarantine: state.Quarantine{{Release: state.Release{Version: "1.0.2"}, Reason: "web: not running"}},
		Channel:    "stable", Server: "http://x/", Why: "because",
	}, nil
}

func (f *fake) History(context.Context) ([]state.Entry, error) {
	return []state.Entry{{Time: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC), Event: state.EventBad, Release: state.Release{Version: "1.0.2"}, Detail: "web: not running"}}, nil
}

func run(t *testing.T, o Options) (out, progress string, err error) {
	t.Helper()
	var b, p bytes.Buffer
	o.Out, o.Progress = &b, &p
	err = Run(t.Context(), &fake{}, o)
	return b.String(), p.String(), err
}

func TestCommands(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want []string
	}{
		{Options{Command: "why"}, []string{"because\n"}},
		{Options{Command: "status"}, []string{"running       1.0.0", "phase         idle", "way back      proa_0.9.0.efi", "quarantined   1.0.2: web: not running", "why           because"}},
		{Options{Command: "history"}, []string{"2026-01-01 12:00:00  1.0.2  bad  web: not running\n"}},
		{Options{Command: "apply"}, []string{"release 1.0.1 is armed"}},
	} {
		out, _, err := run(t, c.o)
		for _, w := range c.want {
			if err != nil || !strings.Contains(out, w) {
				t.Errorf("%s: got %q, %v, want %q", c.o.Command, out, err, w)
			}
		}
		c.o.JSON = true
		if out, _, err := run(t, c.o); err != nil || !json.Valid([]byte(out)) {
			t.Errorf("%s --json: %q, %v", c.o.Command, out, err)
		}
	}
	if _, _, err := run(t, Options{Command: "check"}); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("check: %v", err)
	}
	if _, _, err := run(t, Options{Command: "chekc"}); !errors.Is(err, ErrUsage) {
		t.Errorf("a typo: %v", err)
	}
}

func TestProgressLines(t *testing.T) {
	_, progress, err := run(t, Options{Command: "apply"})
	lines := strings.Split(strings.TrimSpace(progress), "\n")
	if err != nil || len(lines) != 12 || !strings.Contains(lines[0], "checking") || !strings.HasSuffix(lines[11], "writing the passive slot 100 % of 100.0 MB") {
		t.Errorf("got %d lines, %v:\n%s", len(lines), err, progress)
	}
	if _, progress, _ := run(t, Options{Command: "apply", Quiet: true}); progress != "" {
		t.Errorf("quiet: %q", progress)
	}
}
