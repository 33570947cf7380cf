package reboot_test

import (
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/update-engine/reboot"
	"github.com/proa-os/proa/update-engine/state"
)

func TestDecide(t *testing.T) {
	night, noon := instant(t, "2026-01-14 03:30:00 +0100"), instant(t, "2026-01-14 12:00:00 +0100")
	backup := []reboot.Inhibitor{{Who: "backup", Why: "copies the database"}}
	inWindow := window("Europe/Berlin", "03:00", "2h")
	immediate, off, impatient := reboot.Default(), reboot.Default(), reboot.Default()
	immediate.TimeZone = "Europe/Berlin"
	off.Strategy, impatient.MaxDelay = reboot.Off, 0
	for _, c := range []struct {
		name   string
		config reboot.Config
		s      reboot.Situation
		want   reboot.Decision // Reason is a part of it
	}{
		{"immediate", immediate, reboot.Situation{Now: noon}, reboot.Decision{Go: true}},
		{"off", off, reboot.Situation{Now: noon}, reboot.Decision{Reason: "strategy off"}},
		{"off, urgent", off, reboot.Situation{Now: noon, Urgent: true}, reboot.Decision{Reason: "strategy off"}},
		{"held", immediate, reboot.Situation{Now: noon, Held: "release 1.0.1 is halted"}, reboot.Decision{Reason: "halted"}},
		{"held in an open window, urgent", inWindow, reboot.Situation{Now: night, Held: "held by hand", Urgent: true}, reboot.Decision{Reason: "held by hand"}},
		{"window open", inWindow, reboot.Situation{Now: night}, reboot.Decision{Go: true}},
		{"window closed", inWindow, reboot.Situation{Now: noon}, reboot.Decision{When: instant(t, "2026-01-15 03:00:00 +0100"), Reason: "the next window opens at Thu 2026-01-15 03:00 CET"}},
		{"window closed, urgent", inWindow, reboot.Situation{Now: noon, Urgent: true}, reboot.Decision{Go: true}},
		{"blocked", immediate, reboot.Situation{Now: noon, Inhibitors: backup},
			reboot.Decision{When: noon.Add(time.Minute), Blocked: true, Reason: "backup (copies the database) holds the reboot up, until Thu 2026-01-15 12:00 CET"}},
		{"blocked, urgent", immediate, reboot.Situation{Now: noon, Inhibitors: backup, Urgent: true}, reboot.Decision{When: noon.Add(time.Minute), Blocked: true, Reason: "backup"}},
		{"blocked to the last minute", immediate, reboot.Situation{Now: noon, Inhibitors: backup, BlockedSince: noon.Add(-24*time.Hour + time.Second)},
			reboot.Decision{When: noon.Add(time.Second), Blocked: true, Reason: "backup"}},
		{"blocked for too long", immediate, reboot.Situation{Now: noon, Inhibitors: backup, BlockedSince: noon.Add(-24 * time.Hour)}, reboot.Decision{Go: true}},
		{"blocked before the clock was put back", immediate, reboot.Situation{Now: noon, Inhibitors: backup, BlockedSince: noon.Add(time.Hour)},
			reboot.Decision{When: noon.Add(time.Minute), Blocked: true, Reason: "backup"}},
		{"nobody may block", impatient, reboot.Situation{Now: noon, Inhibitors: backup}, reboot.Decision{Go: true}},
		{"a moment is wanted", immediate, reboot.Situation{Now: noon, Inhibitors: []reboot.Inhibitor{{Who: "web", Delay: true}}}, reboot.Decision{Go: true}},
		{"blocked in a window", inWindow, reboot.Situation{Now: night, Inhibitors: backup},
			reboot.Decision{When: night.Add(time.Minute), Blocked: true, Reason: "the window closes at Wed 2026-01-14 05:00 CET"}},
		{"blocked for too long, window closed", inWindow, reboot.Situation{Now: noon, Inhibitors: backup, BlockedSince: noon.Add(-48 * time.Hour)},
			reboot.Decision{When: instant(t, "2026-01-15 03:00:00 +0100"), Reason: "window opens"}},
	} {
		got, err := reboot.Decide(c.config, c.s)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got.Go != c.want.Go || !got.When.Equal(c.want.When) || got.Blocked != c.want.Blocked || !strings.Contains(got.Reason, c.want.Reason) {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestMoment(t *testing.T) {
	noon := instant(t, "2026-01-14 12:00:00 +0100")
	hour := &reboot.Moment{Kernel: "k1", Uptime: time.Hour}
	for _, c := range []struct {
		name   string
		moment *reboot.Moment
		kernel string
		want   time.Time
	}{
		{"an hour ago", hour, "k1", noon.Add(-time.Hour)},
		{"in an earlier boot", hour, "k2", time.Time{}},
		{"never", nil, "k1", time.Time{}},
	} {
		if got := c.moment.Since(noon, c.kernel, 2*time.Hour); !got.Equal(c.want) {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

func TestChoose(t *testing.T) {
	kernel := func(image, line string) reboot.Kernel {
		return reboot.Kernel{Image: digest.Of([]byte(image)), CommandLine: line}
	}
	a := kernel("6.12.1", "console=ttyS0 panic=10 proa.roothash=aa proa.hashoffset=4096")
	for _, c := range []struct {
		name          string
		wanted        reboot.Mode
		running, next reboot.Kernel
		want          reboot.Mode
		reason        string
	}{
		{"another root image", reboot.Auto, a, kernel("6.12.1", "console=ttyS0 panic=10 proa.roothash=bb proa.hashoffset=8192"), reboot.Soft, "stays the same"},
		{"asked for", reboot.Soft, a, a, reboot.Soft, "stays the same"},
		{"forbidden", reboot.Full, a, a, reboot.Full, "configuration"},
		{"another kernel", reboot.Soft, a, kernel("6.12.2", a.CommandLine), reboot.Full, "the kernel changes"},
		{"another word", reboot.Auto, a, kernel("6.12.1", "console=ttyS0 panic=10 quiet proa.roothash=bb"), reboot.Full, `to ["console=ttyS0" "panic=10" "quiet"]`},
		{"another value", reboot.Auto, a, kernel("6.12.1", "console=ttyS0 panic=1"), reboot.Full, "panic=1"},
		{"another order", reboot.Auto, a, kernel("6.12.1", "panic=10 console=ttyS0"), reboot.Full, "command line"},
		{"unknown", reboot.Auto, a, reboot.Kernel{}, reboot.Full, "next release"},
		{"unknown running", reboot.Auto, reboot.Kernel{}, a, reboot.Full, "running release"},
	} {
		if got, reason := reboot.Choose(c.wanted, c.running, c.next); got != c.want || !strings.Contains(reason, c.reason) {
			t.Errorf("%s: got %s, %q, want %s, %q", c.name, got, reason, c.want, c.reason)
		}
	}
}

func TestJudge(t *testing.T) {
	old, next := digest.Of([]byte("old")), digest.Of([]byte("next"))
	try := func(v reboot.Verdict) *reboot.Try {
		return &reboot.Try{Release: state.Release{Version: "1.0.1", Root: next}, Kernel: "k1", Verdict: v}
	}
	for _, c := range []struct {
		name    string
		try     *reboot.Try
		kernel  string
		running digest.SHA256
		left    bool
		want    reboot.Start
	}{
		{"none", nil, "k1", old, true, reboot.Plain},
		{"not yet", try(""), "k1", old, false, reboot.Pending},
		{"came back to the same root", try(""), "k1", old, true, reboot.Pending},
		{"there", try(""), "k1", next, true, reboot.Trying},
		{"there and good", try(reboot.Good), "k1", next, true, reboot.Proven},
		{"there and bad", try(reboot.Bad), "k1", next, true, reboot.Condemned},
		{"reset before a verdict", try(""), "k2", old, true, reboot.Lost},
		{"power cut before it began", try(""), "k2", old, false, reboot.Unarmed},
		{"power cut between verdict and arming", try(reboot.Good), "k2", old, true, reboot.Unarmed},
		{"back after a bad one", try(reboot.Bad), "k2", old, true, reboot.Over},
		{"the loader has started it", try(""), "k2", next, false, reboot.Over},
		{"good, then the loader has started it", try(reboot.Good), "k2", next, true, reboot.Over},
	} {
		if got := c.try.Judge(c.kernel, c.running, c.left); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
}

func TestGap(t *testing.T) {
	at := instant(t, "2026-01-14 03:30:00 +0000")
	old, next := state.Release{Version: "1.0.0", Root: digest.Of([]byte("old"))}, state.Release{Version: "1.0.1", Root: digest.Of([]byte("next"))}
	asked := func(m reboot.Mode) *reboot.Asked {
		return &reboot.Asked{Mode: m, From: old, To: next, Kernel: "k1", Time: at, Uptime: time.Hour}
	}
	for _, c := range []struct {
		name    string
		asked   *reboot.Asked
		away    time.Duration // by the clock
		uptime  time.Duration
		kernel  string
		running digest.SHA256
		want    float64 // 0: none
	}{
		{"full", asked(reboot.Full), 42 * time.Second, 30 * time.Second, "k2", next.Root, 42},
		{"soft", asked(reboot.Soft), -time.Hour, time.Hour + 7*time.Second, "k1", next.Root, 7}, // the clock does not matter
		{"none", nil, time.Second, time.Hour, "k1", next.Root, 0},
		{"came back", asked(reboot.Full), 42 * time.Second, 30 * time.Second, "k2", old.Root, 0},
		{"soft became full", asked(reboot.Soft), 42 * time.Second, 30 * time.Second, "k2", next.Root, 0},
		{"clock put back", asked(reboot.Full), -42 * time.Second, 30 * time.Second, "k2", next.Root, 0},
		{"clock put forward", asked(reboot.Full), 1000 * time.Hour, 30 * time.Second, "k2", next.Root, 0},
	} {
		g, ok := c.asked.Gap(at.Add(c.away), c.uptime, c.kernel, c.running)
		if ok != (c.want != 0) || g.Seconds != c.want || ok && (g.From != "1.0.0" || g.To != "1.0.1") {
			t.Errorf("%s: got %+v, %v, want %v s", c.name, g, ok, c.want)
		}
	}
}
