package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/update-engine/agent"
	"github.com/proa-os/proa/update-engine/plan"
	"github.com/proa-os/proa/update-engine/reboot"
	"github.com/proa-os/proa/update-engine/record"
	"github.com/proa-os/proa/update-engine/state"
)

// userspace is the part of a machine of files that soft reboots need.
type userspace struct {
	*machine
	kernel     int           // how often it has been started
	up         time.Duration // of the kernel
	inhibitors []reboot.Inhibitor
	left       []reboot.Mode // orders to reboot
	prepared   digest.SHA256 // what is mounted at /run/nextroot
	mark       string
	deadline   bool         // proa-try.timer would run
	fails      string       // the step that fails
	before     func(string) // called before each step
}

// withUserspace gives a machine a userspace that can be restarted alone.
func withUserspace(m *machine) *userspace {
	u := &userspace{machine: m, kernel: 1}
	m.userspace = u
	return u
}

func (u *userspace) step(name string) error {
	if u.before != nil {
		u.before(name)
	}
	if u.fails == name {
		return fmt.Errorf("%s does not work", name)
	}
	return nil
}

// Kernel and the rest implement agent.Userspace.
func (u *userspace) Kernel() (string, time.Duration, error) {
	return fmt.Sprintf("kernel %d", u.kernel), u.up, u.step("kernel")
}

func (u *userspace) Inhibitors(context.Context) ([]reboot.Inhibitor, error) {
	return u.inhibitors, u.step("inhibitors")
}

func (u *userspace) Leave(_ context.Context, mode reboot.Mode) error {
	if err := u.step("leave"); err != nil {
		return err
	}
	u.left, u.rebooted = append(u.left, mode), true
	return nil
}

func (u *userspace) Prepare(_ context.Context, root digest.SHA256, _ int64, mark string) error {
	if err := u.step("prepare"); err != nil {
		return err
	}
	u.prepared, u.mark = root, mark
	return nil
}

func (u *userspace) Undo(context.Context) error {
	u.prepared = digest.SHA256{}
	return u.step("undo")
}

func (u *userspace) SetTry(on bool) error {
	u.deadline = on
	return u.step("deadline")
}

// start starts the kernel anew: what is in /run is gone.
func (u *userspace) start() {
	u.t.Helper()
	u.kernel++
	u.prepared, u.deadline, u.up = digest.SHA256{}, false, 0
	u.boot()
}

// softly starts userspace anew, as init/nextroot and systemd do.
func (u *userspace) softly() {
	u.t.Helper()
	u.rebooted = false
	if b := u.builds[u.prepared]; b != nil {
		u.finish()
		u.running, u.active = b, map[string]string{"a": "b", "b": "a"}[u.active]
	}
	u.prepared = digest.SHA256{}
}

// finish is the last step in the old root.
func (u *userspace) finish() {
	u.t.Helper()
	if err := os.WriteFile(u.mark, nil, 0o644); err != nil {
		u.t.Fatal(err)
	}
}

func (u *userspace) memory() reboot.Memory {
	u.t.Helper()
	s, err := record.Open(filepath.Join(u.dir, "var"))
	if err != nil {
		u.t.Fatal(err)
	}
	m, err := s.Reboots()
	if err != nil {
		u.t.Fatal(err)
	}
	return m
}

func (u *userspace) wantLeft(modes ...reboot.Mode) {
	u.t.Helper()
	if !slices.Equal(u.left, modes) {
		u.t.Errorf("orders to reboot: got %q, want %q", u.left, modes)
	}
	u.left = nil
}

func TestSoftUpdate(t *testing.T) {
	u := withUserspace(newMachine(t))
	u.release("1.0.1")
	r, err := u.agent().Check(t.Context())
	if err != nil || r.Mode != "soft" || r.LastGap != 0 {
		t.Fatalf("check: %+v, %v", r, err)
	}
	u.up = time.Hour
	if r, err = u.apply(); err != nil || r.Mode != "soft" {
		t.Fatalf("apply: %+v, %v", r, err)
	}
	u.wantLeft(reboot.Soft)
	u.wantESP("proa_1.0.0.efi", "proa_1.0.1.part") // whatever starts the machine now starts 1.0.0
	if !u.deadline {
		t.Error("nothing bounds the try")
	}
	u.softly()
	u.wantRuns("1.0.1")
	if got := u.why(); !strings.Contains(got, "on trial after a soft reboot") {
		t.Errorf("why: %s", got)
	}
	if _, err := u.apply(); err == nil || !strings.Contains(err.Error(), "on trial") {
		t.Errorf("apply in a soft try: %v", err)
	}
	u.up += 12 * time.Second
	if err := u.health(nil); err != nil {
		t.Fatal(err)
	}
	u.wantESP("proa_1.0.0.efi", "proa_1.0.1+3.efi")
	if u.deadline {
		t.Error("a good release is still bounded")
	}
	if g := u.memory().Gaps[reboot.Soft]; g.Seconds != 12 || g.From != "1.0.0" || g.To != "1.0.1" {
		t.Errorf("gap: %+v", g)
	}
	if got := u.why(); got != "runs 1.0.1, the release of channel stable" {
		t.Errorf("why: %s", got)
	}

	// The old slot is the only one that has proven itself from the firmware on: it is not written before the new one has.
	u.release("1.0.2")
	if r, err = u.apply(); err != nil || r.Armed || !strings.Contains(r.Text, "has to prove itself before 1.0.2") {
		t.Fatalf("apply: %+v, %v", r, err)
	}
	u.wantLeft(reboot.Full)
	u.start()
	u.wantRuns("1.0.1")
	if err := u.health(nil); err != nil {
		t.Fatal(err)
	}
	u.wantESP("proa_1.0.0.efi", "proa_1.0.1.efi")
	if got := u.memory().Try; got != nil {
		t.Errorf("still remembers %+v", got)
	}
	r, err = u.agent().Check(t.Context())
	if err != nil || r.Mode != "soft" || r.LastGap != 12 || !strings.HasSuffix(r.Text, "; the reboot would be soft (the kernel stays the same), which took 12 s last time") {
		t.Fatalf("check: %+v, %v", r, err)
	}
	if _, err := u.apply(); err != nil {
		t.Fatal(err)
	}
	u.softly()
	if err := u.health(nil); err != nil {
		t.Fatal(err)
	}
	u.wantRuns("1.0.2")
	u.wantESP("proa_1.0.1.efi", "proa_1.0.2+3.efi")
}

// A release with another kernel is rebooted into in full, and check says so before anything is downloaded, and how long that took last time.
func TestKernelChanges(t *testing.T) {
	u := withUserspace(newMachine(t))
	for i, version := range []string{"1.0.1", "1.0.2"} {
		b := u.tiny(version)
		b.SetKernel(t, "of "+version)
		u.repo.Release(t, b)
		r, err := u.agent().Check(t.Context())
		if err != nil || r.Mode != "full" || r.ModeReason != "the kernel changes" || r.LastGap != float64(40*i) {
			t.Fatalf("check: %+v, %v", r, err)
		}
		if want := []string{"; the reboot would be full (the kernel changes)", "; the reboot would be full (the kernel changes), which took 40 s last time"}[i]; !strings.HasSuffix(r.Text, want) {
			t.Errorf("check says %q, want %q", r.Text, want)
		}
		if len(u.asked("payload")) > i {
			t.Errorf("downloaded to say so: %q", u.server.Requests())
		}
		if r, err = u.apply(); err != nil || r.Mode != "full" || r.ModeReason != "the kernel changes" {
			t.Fatalf("apply: %+v, %v", r, err)
		}
		u.wantLeft(reboot.Full)
		u.repo.Time = u.repo.Time.Add(40 * time.Second)
		u.start()
		u.wantRuns(version)
		if err := u.health(nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSoftTryThatIsBad(t *testing.T) {
	u := withUserspace(newMachine(t))
	u.release("1.0.1")
	if _, err := u.apply(); err != nil {
		t.Fatal(err)
	}
	u.softly()
	if err := u.health(errors.New("web: not running")); err == nil || !u.rebooted || !u.forced {
		t.Fatalf("health: %v, rebooted %v", err, u.rebooted)
	}
	u.start()
	u.wantRuns("1.0.0")
	if err := u.health(nil); err != nil {
		t.Fatal(err)
	}
	u.wantBad("1.0.1", "web: not running")
	if _, err := u.apply(); err != nil || u.rebooted {
		t.Errorf("takes a bad release again: %v", err)
	}
	u.release("1.0.2")
	if _, err := u.apply(); err != nil {
		t.Fatal(err)
	}
	u.wantESP("proa_1.0.0.efi", "proa_1.0.2.part")
	u.softly()
	u.wantRuns("1.0.2")
}

// A soft try that hangs, or that a power cut ends, is over.
func TestSoftTryWithoutVerdict(t *testing.T) {
	u := withUserspace(newMachine(t))
	u.release("1.0.1")
	if _, err := u.apply(); err != nil {
		t.Fatal(err)
	}
	u.softly()
	u.start()
	u.wantRuns("1.0.0")
	if err := u.health(nil); err != nil {
		t.Fatal(err)
	}
	u.wantBad("1.0.1", "reached no verdict")
}

// A soft reboot that ends in the same root image is not the release's fault: the next reboot is full.
func TestSoftRebootIntoTheSameRoot(t *testing.T) {
	u := withUserspace(newMachine(t))
	u.release("1.0.1")
	if _, err := u.apply(); err != nil {
		t.Fatal(err)
	}
	u.prepared = digest.SHA256{} // systemd does not take it
	u.softly()
	u.wantRuns("1.0.0")
	if err := u.health(nil); err != nil {
		t.Fatal(err)
	}
	u.wantESP("proa_1.0.0.efi", "proa_1.0.1+3.efi")
	u.left = nil
	r, err := u.apply()
	if err != nil || r.Mode != "full" || !strings.Contains(r.ModeReason, "did not succeed") {
		t.Fatalf("apply: %+v, %v", r, err)
	}
	u.wantLeft(reboot.Full)
	u.start()
	u.wantRuns("1.0.1")
	if err := u.health(nil); err != nil {
		t.Fatal(err)
	}
	if m := u.memory(); m.Gaps[reboot.Soft].Seconds != 0 {
		t.Errorf("measured %+v", m.Gaps)
	}
}

// A soft reboot that is ordered and never comes keeps nothing else from happening for long, wherever the clock goes.
func TestSoftRebootThatNeverComes(t *testing.T) {
	for _, passed := range []time.Duration{time.Hour, -time.Hour} {
		u := withUserspace(newTinyMachine(t))
		if _, err := u.apply(); err != nil {
			t.Fatal(err)
		}
		settle := func() {
			if _, err := u.agent().Settle(); err != nil {
				t.Fatal(err)
			}
		}
		settle()
		if _, err := u.apply(); err == nil || !strings.Contains(err.Error(), "under way") {
			t.Errorf("apply: %v", err)
		}
		u.wantESP("proa_1.0.0.efi", "proa_1.0.1.part")
		u.repo.Time = u.repo.Time.Add(passed)
		settle()
		u.wantESP("proa_1.0.0.efi", "proa_1.0.1+3.efi")
		if u.deadline || u.prepared != (digest.SHA256{}) {
			t.Error("something is left in /run")
		}
		if r, err := u.apply(); err != nil || r.Mode != "full" {
			t.Errorf("apply: %+v, %v", r, err)
		}
	}
}

// What cannot be prepared is rebooted into in full.
func TestSoftRebootThatCannotBegin(t *testing.T) {
	for _, step := range []string{"prepare", "deadline", "leave"} {
		u := withUserspace(newMachine(t))
		u.release("1.0.1")
		u.fails = step
		r, err := u.apply()
		if step == "leave" { // the full reboot does not begin either
			if err == nil || !strings.Contains(err.Error(), "armed, but the reboot could not be started") {
				t.Errorf("%s: %+v, %v", step, r, err)
			}
		} else if err != nil || r.Mode != "full" {
			t.Errorf("%s: %+v, %v", step, r, err)
		}
		u.wantESP("proa_1.0.0.efi", "proa_1.0.1+3.efi")
		if u.prepared != (digest.SHA256{}) || u.memory().Try != nil {
			t.Errorf("%s: left %s, %+v", step, u.prepared, u.memory().Try)
		}
	}
}

func TestRebootWaits(t *testing.T) {
	m := newMachine(t)
	u := withUserspace(m)
	u.reboots = reboot.Default()
	u.reboots.Strategy = reboot.InWindow
	u.reboots.Windows = []reboot.Window{{Start: "12:30", Duration: reboot.Duration(time.Hour)}}
	u.reboots.MaxDelay = reboot.Duration(30 * time.Minute)
	u.release("1.0.1")
	r, err := u.apply()
	opens := time.Date(2026, 1, 1, 12, 30, 0, 0, time.UTC)
	if err != nil || !r.Armed || u.rebooted || r.AskAgain == nil || !r.AskAgain.Equal(opens) {
		t.Fatalf("apply: %+v, %v", r, err)
	}
	u.wantESP("proa_1.0.0.efi", "proa_1.0.1+3.efi")
	if got := u.why(); got != "runs 1.0.0: release 1.0.1 is written and armed, and the next window opens at Thu 2026-01-01 12:30 UTC" {
		t.Errorf("why: %s", got)
	}
	// The timer comes back then.
	if _, err := u.agent().Auto(t.Context()); err != nil || u.rebooted {
		t.Fatalf("auto: %v, rebooted %v", err, u.rebooted)
	}
	store, err := record.Open(filepath.Join(u.dir, "var"))
	if err != nil {
		t.Fatal(err)
	}
	if s, err := store.Schedule(); err != nil || !s.Next.Equal(opens) {
		t.Errorf("looks again at %s, %v, want %s", s.Next, err, opens)
	}

	u.repo.Time = opens
	u.inhibitors = []reboot.Inhibitor{{Who: "backup", Why: "copies"}}
	if r, err = u.apply(); err != nil || u.rebooted || !strings.Contains(r.Text, "backup (copies) holds the reboot up, until Thu 2026-01-01 13:00") {
		t.Fatalf("apply: %+v, %v", r, err)
	}
	u.repo.Time, u.up = opens.Add(31*time.Minute), u.up+time.Minute // the clock was wrong, and was set
	if r, err = u.apply(); err != nil || u.rebooted {
		t.Fatalf("apply: %+v, %v", r, err)
	}
	u.repo.Time, u.up = opens.Add(29*time.Minute), u.up+28*time.Minute
	if r, err = u.apply(); err != nil || u.rebooted {
		t.Fatalf("apply: %+v, %v", r, err)
	}
	u.repo.Time, u.up = opens.Add(30*time.Minute), u.up+time.Minute
	if r, err = u.apply(); err != nil || !u.rebooted {
		t.Fatalf("apply: %+v, %v", r, err)
	}
	u.wantLeft(reboot.Soft)
	u.softly()
	if err := u.health(nil); err != nil {
		t.Fatal(err)
	}
	if got := u.memory().Blocked; got != nil {
		t.Errorf("the next release inherits a delay that began at %+v", got)
	}
}

// waiting is a machine on which 1.0.1 is armed at 12:00 and waits for its window, at 03:00.
func waiting(t *testing.T) *userspace {
	t.Helper()
	u := withUserspace(newTinyMachine(t))
	u.reboots = reboot.Default()
	u.reboots.Strategy = reboot.InWindow
	u.reboots.Windows = []reboot.Window{{Start: "03:00", Duration: reboot.Duration(time.Hour)}}
	if r, err := u.auto(); err != nil || !r.Armed || u.rebooted {
		t.Fatalf("auto: %+v, %v, rebooted %v", r, err, u.rebooted)
	}
	return u
}

func (u *userspace) wantPhase(want state.Phase) {
	u.t.Helper()
	if r, err := u.agent().Status(); err != nil || r.State.Phase != want {
		u.t.Errorf("phase: got %s, %v, want %s", r.State.Phase, err, want)
	}
}

// A stick is plugged in at noon and taken out: what it has armed still waits for the window, and is rebooted into when that opens.
func TestWindowWithoutRepository(t *testing.T) {
	u := waiting(t)
	u.offline = true
	u.repo.Time = u.repo.Time.Add(2 * time.Hour)
	r, err := u.auto()
	if err != nil || !r.Armed || u.rebooted || r.AskAgain == nil {
		t.Fatalf("before the window: %+v, %v, rebooted %v", r, err, u.rebooted)
	}
	u.wantPhase(state.Armed)
	u.wantWhy("release 1.0.1 is written and armed, and the next window opens at Fri 2026-01-02 03:00 UTC")
	u.repo.Time = *r.AskAgain
	if r, err := u.auto(); err != nil || !u.rebooted {
		t.Fatalf("in the window: %+v, %v, rebooted %v", r, err, u.rebooted)
	}
	u.wantLeft(reboot.Soft)
}

// A stick that stays in has nothing but what has expired: that is no worse than one that was taken out.
func TestWindowWithAnExpiredRepository(t *testing.T) {
	u := waiting(t)
	u.repo.Time = u.repo.Time.Add(2 * time.Hour)
	if _, err := u.auto(); err != nil || u.rebooted {
		t.Fatalf("auto: %v, rebooted %v", err, u.rebooted)
	}
	u.repo.Time = u.repo.Time.Add(23 * time.Hour)
	u.reboots.Windows[0].Start = "13:00"
	if r, err := u.auto(); err != nil || !u.rebooted {
		t.Errorf("in the window: %+v, %v, rebooted %v", r, err, u.rebooted)
	}
}

// An answer does not count for ever, and not for what it was not about; the release stays armed and the line says what is missing.
func TestWindowWithoutAnAnswer(t *testing.T) {
	open := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		do  func(*userspace)
		why string
	}{
		"for too long": {func(u *userspace) { u.offline, u.repo.Time = true, open.Add(24*time.Hour) },
			"its last answer, of 2026-01-01 12:00, counts for 24 hours"},
		"the clock was put back": {func(u *userspace) { u.offline, u.repo.Time = true, open.Add(-24*time.Hour) }, "its last answer, of 2026-01-01 12:00"},
		"halted before": {func(u *userspace) {
			u.halt()
			if _, err := u.agent().Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			u.offline, u.repo.Time = true, open
		}, "halted"},
		"refused": {func(u *userspace) {
			u.repo.Time = open
			u.server.Tamper("timestamp.json", func(b []byte) { b[0] = '<' })
		}, "the last look for a newer release failed: refuse timestamp.json"},
	} {
		u := waiting(t)
		c.do(u)
		if r, err := u.auto(); err == nil || u.rebooted || !strings.Contains(err.Error(), "release 1.0.1 stays armed") {
			t.Errorf("%s: %+v, %v, rebooted %v", name, r, err, u.rebooted)
		}
		u.wantESP("proa_1.0.0.efi", "proa_1.0.1+3.efi")
		u.wantPhase(state.Armed)
		u.wantWhy("release 1.0.1 is written and armed, and ")
		u.wantWhy(c.why)
	}
}

// A rollout that is halted stops what waits for a window, as long as somebody can say so: at the look, or between it and the reboot.
func TestWindowHalted(t *testing.T) {
	u := waiting(t)
	u.repo.Time = time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	u.halt()
	if r, err := u.auto(); err != nil || u.rebooted {
		t.Errorf("halted: %+v, %v, rebooted %v", r, err, u.rebooted)
	}
	u.wantWhy("only a reboot by hand tries it")

	u = waiting(t)
	u.repo.Time = time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	u.halt()
	u.server.Refuse("", 503)
	asked := len(u.server.Requests())
	u.before = func(step string) {
		if step == "inhibitors" && len(u.server.Requests()) > asked { // the look has failed
			u.server.Refuse("", 0)
		}
	}
	if r, err := u.auto(); err != nil || u.rebooted || !strings.Contains(r.Text, "halted") {
		t.Errorf("there again, and halted: %+v, %v, rebooted %v", r, err, u.rebooted)
	}
}

func (u *userspace) halt() {
	u.t.Helper()
	if err := u.repo.Publish("stable", plan.Plan{Release: "1.0.1", Halted: true}); err != nil {
		u.t.Fatal(err)
	}
}

func TestUrgentDoesNotWaitForAWindow(t *testing.T) {
	u := withUserspace(newMachine(t))
	u.reboots = reboot.Default()
	u.reboots.Strategy = reboot.InWindow
	u.reboots.Windows = []reboot.Window{{Start: "03:00", Duration: reboot.Duration(time.Hour)}}
	u.release("1.0.1")
	if err := u.repo.Publish("stable", plan.Plan{Release: "1.0.1", Urgent: true}); err != nil {
		t.Fatal(err)
	}
	if r, err := u.apply(); err != nil || !u.rebooted {
		t.Errorf("apply: %+v, %v", r, err)
	}
}

// Everything is looked at again when the soft reboot is prepared and only the order is missing.
func TestLastStep(t *testing.T) {
	for name, change := range map[string]func(*userspace){
		"window":    func(u *userspace) { u.repo.Time = u.repo.Time.Add(time.Hour) },
		"inhibitor": func(u *userspace) { u.inhibitors = []reboot.Inhibitor{{Who: "backup"}} },
		"halted": func(u *userspace) {
			if err := u.repo.Publish("stable", plan.Plan{Release: "1.0.1", Halted: true}); err != nil {
				t.Error(err)
			}
		},
	} {
		for _, step := range []string{"prepare", "deadline"} {
			u := withUserspace(newMachine(t))
			u.reboots = reboot.Default()
			u.reboots.Strategy = reboot.InWindow
			u.reboots.Windows = []reboot.Window{{Start: "12:00", Duration: reboot.Duration(time.Hour)}}
			u.release("1.0.1")
			changed := false
			u.before = func(s string) {
				if s == step && !changed {
					changed = true
					change(u)
				}
			}
			r, err := u.apply()
			if err != nil || u.rebooted || !changed {
				t.Errorf("%s at %s: %+v, %v, rebooted %v", name, step, r, err, u.rebooted)
			}
			u.wantESP("proa_1.0.0.efi", "proa_1.0.1+3.efi")
			if u.prepared != (digest.SHA256{}) || u.deadline {
				t.Errorf("%s at %s: something is left in /run", name, step)
			}
		}
	}
}

// A full reboot has its last look, too, when nothing but the order is missing.
func TestLastStepOfAFullReboot(t *testing.T) {
	for name, change := range map[string]func(*userspace){
		"window":    func(u *userspace) { u.repo.Time = u.repo.Time.Add(time.Hour) },
		"inhibitor": func(u *userspace) { u.inhibitors = []reboot.Inhibitor{{Who: "backup"}} },
	} {
		u := withUserspace(newTinyMachine(t))
		u.reboots = reboot.Default()
		u.reboots.Strategy, u.reboots.Mode = reboot.InWindow, reboot.Full
		u.reboots.Windows = []reboot.Window{{Start: "12:00", Duration: reboot.Duration(time.Hour)}}
		asked := 0
		u.moment = func() {
			if asked == 1 { // all was well at the first look
				asked++
				change(u)
			}
		}
		u.before = func(step string) {
			if step == "inhibitors" {
				asked++
			}
		}
		if r, err := u.apply(); err != nil || u.rebooted || !r.Armed || r.AskAgain == nil {
			t.Errorf("%s: %+v, %v, rebooted %v", name, r, err, u.rebooted)
		}
	}
}

// window is a window that is open now, at twelve, and closed in an hour.
func (u *userspace) window(mode reboot.Mode) {
	u.reboots = reboot.Default()
	u.reboots.Strategy, u.reboots.Mode = reboot.InWindow, mode
	u.reboots.Windows = []reboot.Window{{Start: "12:00", Duration: reboot.Duration(time.Hour)}}
}

// watch runs an update and calls at before whatever can take time: questions to the repository and to the machine, each thing that is
// written, and looks at the clock. It returns what they were.
func (u *userspace) watch(at func(n int)) (events []string, r *state.Result, err error) {
	event := func(name string) {
		at(len(events))
		events = append(events, name)
	}
	a := u.agent()
	a.Store.Changed = func() { event("written") }
	u.before = event
	u.moment = func() { event("clock") }
	u.server.Tamper("/timestamp.json", func([]byte) { event("repository") })
	r, err = a.Apply(u.t.Context(), true)
	u.before, u.moment = nil, nil
	u.server.Tamper("/timestamp.json", nil)
	return events, r, err
}

// The window closes or a backup begins while the repository answers for the last time, or while something is written after that: nothing
// but the order comes after the last look at both.
func TestLastLook(t *testing.T) {
	changes := map[string]func(*userspace){
		"clock":      func(u *userspace) { u.repo.Time = u.repo.Time.Add(time.Hour) },
		"inhibitors": func(u *userspace) { u.inhibitors = []reboot.Inhibitor{{Who: "backup"}} },
	}
	for _, mode := range []reboot.Mode{reboot.Soft, reboot.Full} {
		u := withUserspace(newTinyMachine(t))
		u.window(mode)
		if r, err := u.agent().Apply(t.Context(), false); err != nil || !r.Armed {
			t.Fatalf("%+v, %v", r, err)
		}
		armed, noon := u.save(), u.repo.Time
		events, _, err := u.watch(func(int) {})
		if err != nil {
			t.Fatal(err)
		}
		u.wantLeft(mode)
		leave := slices.Index(events, "leave")
		if got := events[leave-2 : leave]; !slices.Equal(got, []string{"inhibitors", "clock"}) {
			t.Errorf("%s: between the last look and the order: %q", mode, events[:leave])
		}
		asked := 0
		for at, event := range events[:leave] {
			for name, change := range changes {
				if event != "repository" && event != "written" && at < leave-2 || at == leave-1 && name == "inhibitors" {
					continue
				}
				u.restore(armed)
				u.repo.Time, u.inhibitors, u.prepared, u.deadline = noon, nil, digest.SHA256{}, false
				_, r, err := u.watch(func(n int) {
					if n == at {
						change(u)
					}
				})
				if err != nil || u.rebooted || !r.Armed || r.AskAgain == nil || !strings.Contains(r.Text, map[string]string{"clock": "window opens", "inhibitors": "backup"}[name]) {
					t.Errorf("%s, %s at event %d (%s): %+v, %v, rebooted %v", mode, name, at, event, r, err, u.rebooted)
				}
				u.wantESP("proa_1.0.0.efi", "proa_1.0.1+3.efi")
				u.wantPhase(state.Armed)
				if u.prepared != (digest.SHA256{}) || u.deadline || u.memory().Asked != nil {
					t.Errorf("%s, %s at event %d (%s): something is left", mode, name, at, event)
				}
			}
			if event == "repository" {
				asked++
			}
		}
		if asked != 3 {
			t.Errorf("%s: the repository was asked %d times, want for the update, before it begins to leave, and at the end", mode, asked)
		}
	}
}

// What the repository says last counts: that a release is urgent by now, or no more.
func TestLastAnswerIsUrgent(t *testing.T) {
	for _, urgent := range []bool{true, false} {
		for _, mode := range []reboot.Mode{reboot.Soft, reboot.Full} {
			u := withUserspace(newTinyMachine(t))
			u.window(mode)
			publish := func(urgent bool) {
				if err := u.repo.Publish("stable", plan.Plan{Release: "1.0.1", Urgent: urgent}); err != nil {
					t.Error(err)
				}
			}
			publish(!urgent)
			if !urgent {
				u.reboots.Windows[0].Start = "03:00"
			}
			asked, looks := 0, 0
			u.before = func(step string) {
				if step == "inhibitors" {
					if looks++; looks == 2 { // the first was well
						publish(urgent)
					}
				}
			}
			u.server.Tamper("/timestamp.json", func([]byte) {
				if asked++; asked == 3 && urgent {
					u.repo.Time = u.repo.Time.Add(time.Hour) // the window closes
				}
			})
			if r, err := u.apply(); err != nil || u.rebooted != urgent {
				t.Errorf("%s, urgent %v: %+v, %v, rebooted %v", mode, urgent, r, err, u.rebooted)
			}
		}
	}
}

// That another release is urgent does not open the window for the one that is pinned.
func TestUrgentIsAboutOneRelease(t *testing.T) {
	u := withUserspace(newTinyMachine(t))
	u.window(reboot.Full)
	u.reboots.Windows[0].Start = "03:00"
	if _, err := u.agent().Pin("1.0.1", by("")); err != nil {
		t.Fatal(err)
	}
	u.repo.Release(t, u.tiny("1.0.2"))
	if err := u.repo.Publish("stable", plan.Plan{Release: "1.0.2", Urgent: true}); err != nil {
		t.Fatal(err)
	}
	if r, err := u.apply(); err != nil || u.rebooted || !r.Armed {
		t.Errorf("apply: %+v, %v, rebooted %v", r, err, u.rebooted)
	}
	u.wantESP("proa_1.0.0.efi", "proa_1.0.1+3.efi")
}

// How long somebody has held the reboot up is forgotten when nobody does any more, whoever else only wants a moment.
func TestInhibitorsDoNotInheritDelay(t *testing.T) {
	u := withUserspace(newTinyMachine(t))
	u.reboots = reboot.Default()
	u.reboots.Strategy = reboot.InWindow
	u.reboots.Windows = []reboot.Window{{Start: "12:00", Duration: reboot.Duration(time.Hour)}}
	u.reboots.MaxDelay = reboot.Duration(24 * time.Hour)
	web, backup := reboot.Inhibitor{Who: "web", Delay: true}, reboot.Inhibitor{Who: "backup"}
	look := func(hours int, inhibitors ...reboot.Inhibitor) {
		t.Helper()
		u.repo.Time, u.up = u.repo.Time.Add(time.Duration(hours)*time.Hour), u.up+time.Duration(hours)*time.Hour
		if _, err := u.repo.Refresh(); err != nil {
			t.Fatal(err)
		}
		u.inhibitors = inhibitors
		if r, err := u.apply(); err != nil || u.rebooted || !r.Armed {
			t.Fatalf("%d hours later: %+v, %v, rebooted %v", hours, r, err, u.rebooted)
		}
	}
	look(0, web, backup)
	look(2, web) // the window is closed, the backup is done
	look(46, web, backup)
}

// moments runs what follows, and calls at before every look at the clock, the ESP and the machine, which are between all that is written.
func (u *userspace) moments(at func(n int)) {
	n := 0
	tick := func() { at(n); n++ }
	u.moment, u.mounting, u.before = tick, tick, func(string) { tick() }
}

// saved is a machine's disk but for its slots, which do not change here.
type saved struct {
	files            map[string][]byte
	marked, good     bool // the soft try has begun; it has a verdict
	version          string
	active           string
	running, prepare digest.SHA256
}

func (u *userspace) save() saved {
	s := saved{files: map[string][]byte{}, running: u.running.Release.Root.RootHash, active: u.active}
	for _, dir := range []string{"esp", "var"} {
		err := filepath.WalkDir(filepath.Join(u.dir, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			s.files[path] = b
			return err
		})
		if err != nil {
			u.t.Fatal(err)
		}
	}
	_, s.marked = s.files[filepath.Join(u.dir, "var/soft-left")]
	var m reboot.Memory
	if b := s.files[filepath.Join(u.dir, "var/reboot.json")]; b != nil {
		if err := json.Unmarshal(b, &m); err != nil {
			u.t.Fatal(err)
		}
	}
	s.good = m.Try == nil || m.Try.Verdict == reboot.Good
	return s
}

func (u *userspace) restore(s saved) {
	for _, dir := range []string{"esp", "var"} {
		if err := os.RemoveAll(filepath.Join(u.dir, dir)); err != nil {
			u.t.Fatal(err)
		}
	}
	for path, b := range s.files {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o644)); err != nil {
			u.t.Fatal(err)
		}
	}
	u.running, u.active, u.rebooted = u.builds[s.running], s.active, false
}

// Whenever the power is cut in a soft update, the machine comes up on a release that works, and is on the new one in the end, unless its
// soft try had begun and had no verdict.
func TestPowerCutsInASoftUpdate(t *testing.T) {
	u := withUserspace(newMachine(t))
	u.release("1.0.1")
	if _, err := u.agent().Apply(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	var cuts []saved
	u.moments(func(int) { cuts = append(cuts, u.save()) })
	if _, err := u.apply(); err != nil {
		t.Fatal(err)
	}
	u.moment, u.mounting, u.before = nil, nil, nil
	cuts = append(cuts, u.save())
	u.finish()
	cuts = append(cuts, u.save())
	u.softly()
	u.moments(func(int) { cuts = append(cuts, u.save()) })
	if err := u.health(nil); err != nil {
		t.Fatal(err)
	}
	u.moment, u.mounting, u.before = nil, nil, nil
	cuts = append(cuts, u.save())
	u.wantESP("proa_1.0.0.efi", "proa_1.0.1+3.efi")

	var lost, kept int
	for i, cut := range cuts {
		for _, both := range []bool{false, true} { // a rename that was cut in the middle leaves both names
			u.restore(cut)
			if both && !u.doubleName() {
				continue
			}
			u.start()
			first := u.running.Release.Version
			if err := u.health(nil); err != nil {
				t.Fatalf("cut %d: %v", i, err)
			}
			bad := u.quarantined("1.0.1")
			if want := cut.marked && !cut.good && first == "1.0.0"; bad != want {
				t.Errorf("cut %d: comes up on %s, quarantined %v, want %v", i, first, bad, want)
			}
			if bad {
				lost++
				u.wantRuns("1.0.0")
				continue
			}
			kept++
			u.settleDown(i)
		}
	}
	if lost == 0 || kept < 20 {
		t.Errorf("%d cuts in a try without a verdict, %d others: too few to mean something", lost, kept)
	}
	t.Logf("%d cuts: %d lost a try that had begun, %d did not matter", lost+kept, lost, kept)
}

// doubleName gives the boot program of 1.0.1 both names, if it has one of them.
func (u *userspace) doubleName() bool {
	hidden, armed := filepath.Join(u.dir, "esp/proa_1.0.1.part"), filepath.Join(u.dir, "esp/proa_1.0.1+3.efi")
	for from, to := range map[string]string{hidden: armed, armed: hidden} {
		if b, err := os.ReadFile(from); err == nil {
			if err := os.WriteFile(to, b, 0o644); err != nil {
				u.t.Fatal(err)
			}
			return true
		}
	}
	return false
}

func (u *userspace) quarantined(version string) bool {
	r, err := u.agent().Status()
	if err != nil {
		u.t.Fatal(err)
	}
	return slices.ContainsFunc(r.Quarantine, func(q state.Quarantined) bool { return q.Version == version })
}

// settleDown lets the machine go on until it has nothing to do.
func (u *userspace) settleDown(cut int) {
	u.t.Helper()
	for range 4 {
		u.rebooted = false
		if _, err := u.apply(); err != nil {
			u.t.Fatalf("cut %d: %v", cut, err)
		}
		if !u.rebooted {
			break
		}
		if u.left[len(u.left)-1] == reboot.Soft {
			u.softly()
		} else {
			u.start()
		}
		if err := u.health(nil); err != nil {
			u.t.Fatalf("cut %d: %v", cut, err)
		}
	}
	if got := u.running.Release.Version; got != "1.0.1" {
		u.t.Errorf("cut %d: ends on %s", cut, got)
	}
	u.start()
	if got := u.running.Release.Version; got != "1.0.1" {
		u.t.Errorf("cut %d: the next start of the kernel leads to %s", cut, got)
	}
}

var _ agent.Userspace = (*userspace)(nil)
