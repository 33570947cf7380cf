package agent_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/proa-os/proa/update-engine/config"
	"github.com/proa-os/proa/update-engine/reboot"
)

// What people configure counts for the next job, however many questions are being answered; they are answered meanwhile, and while a job works.
func TestRefreshBeforeEachJob(t *testing.T) {
	m := newTinyMachine(t)
	a := m.agent()
	var channel atomic.Value
	channel.Store("stable")
	a.Refresh = func() error {
		c := *a.Config // nobody else writes it
		c.Channel = channel.Load().(string)
		a.Configure(&c, nil)
		return nil
	}
	stop, answered := make(chan struct{}), make(chan struct{}, 2)
	for range cap(answered) { // the next question comes before the last is answered
		go func() {
			defer func() { answered <- struct{}{} }()
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := a.Status(); err != nil {
					t.Errorf("status: %v", err)
				}
			}
		}()
	}
	if r, err := a.Check(t.Context()); err != nil || r.Offered == nil {
		t.Errorf("check: %+v, %v", r, err)
	}
	channel.Store("other")
	if _, err := a.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "other") {
		t.Errorf("check: got %v, want an error about channel other", err)
	}
	channel.Store("stable")
	if r, err := a.Apply(t.Context(), true); err != nil || !r.Armed {
		t.Errorf("apply: %+v, %v", r, err)
	}
	close(stop)
	for range cap(answered) {
		<-answered
	}
}

// With a configuration that cannot be used no job begins, not even the timer's, and people can ask why.
func TestRefreshFails(t *testing.T) {
	m := newTinyMachine(t)
	a := m.agent()
	broken := errors.New("read configuration: no")
	a.Refresh = func() error {
		a.Configure(&config.Config{}, broken)
		return broken
	}
	if r, err := a.Status(); err != nil || !strings.Contains(r.Why, "read configuration: no") {
		t.Errorf("status: %+v, %v", r, err)
	}
	if _, err := a.Check(t.Context()); !errors.Is(err, broken) {
		t.Errorf("check: %v", err)
	}
	if _, err := a.Auto(t.Context()); !errors.Is(err, broken) || m.schedule().Failures != 0 {
		t.Errorf("auto: %v, %+v", err, m.schedule())
	}
	broken = nil
	a.Refresh = nil
	a.Configure(m.agent().Config, nil)
	if r, err := a.Check(t.Context()); err != nil || r.Offered == nil {
		t.Errorf("check once it is mended: %+v, %v", r, err)
	}
}

// Who changes their mind about reboots during the download is heard, and what cannot be read is no leave to reboot.
func TestRebootsAreReadAgain(t *testing.T) {
	off := reboot.Default()
	off.Strategy = reboot.Off
	for name, c := range map[string]struct {
		then reboot.Config
		err  error
	}{"strategy off": {then: off}, "read configuration": {err: errors.New("read configuration: no")}} {
		u := withUserspace(newTinyMachine(t))
		a := u.agent()
		now, err := a.Config.Reboot, error(nil)
		a.Progress = func(stage string, _, _ int64) {
			if strings.HasPrefix(stage, "write") {
				now, err = c.then, c.err
			}
		}
		a.Reboots = func() (reboot.Config, error) { return now, err }
		r, applyErr := a.Apply(t.Context(), true)
		if u.rebooted || (applyErr == nil) != (c.err == nil) || !strings.Contains(fmt.Sprint(r, applyErr), name) {
			t.Errorf("%s: %+v, %v, rebooted %v", name, r, applyErr, u.rebooted)
		}
		u.wantESP("proa_1.0.0.efi", "proa_1.0.1+3.efi")
	}
}
