package state

import (
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/slot"
)

func hash(s string) digest.SHA256 { return digest.Of([]byte(s)) }

func TestPhases(t *testing.T) {
	walk := func(phases ...Phase) error {
		p := Phase("")
		for _, next := range phases {
			var err error
			if p, err = p.To(next); err != nil {
				return err
			}
		}
		return nil
	}
	for _, good := range [][]Phase{
		{Checking, Idle, Checking, Downloading, Writing, Armed, Rebooting, Trying, Good, Checking},
		{Checking, Downloading, Failed, Checking, Downloading, Writing, Failed, Checking},
		{Checking, Downloading, Writing, Armed, Checking, Downloading, Writing, Armed, Rebooting, Trying, Failed},
		{Trying, Good}, {Checking, Failed}, {Idle, Idle},
	} {
		if err := walk(good...); err != nil {
			t.Errorf("%v: %v", good, err)
		}
	}
	for _, bad := range [][]Phase{{Armed}, {Checking, Armed}, {Writing}, {Trying, Armed}, {Good}, {Checking, Downloading, Armed}} {
		if err := walk(bad...); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
}

func TestJudge(t *testing.T) {
	a, b, c := Program{"proa_1.0.1.efi", hash("a")}, Program{"proa_1.0.0.efi", hash("b")}, Program{"proa_1.0.2+2-1.efi", hash("c")}
	armed := Program{"proa_1.0.2+3.efi", hash("c")}
	exhausted := Program{"proa_1.0.2+0-3.efi", hash("c")}
	for _, x := range []struct {
		name     string
		running  string
		programs []Program
		counts   slot.Counts
		q        Quarantine
		want     Boot
	}{
		{"good", "a", []Program{a, b}, nil, nil, Boot{File: a.File, Version: "1.0.1", WayBack: b.File, Next: a.File}},
		{"a try", "c", []Program{a, c}, nil, nil, Boot{File: c.File, Version: "1.0.2", Trying: true, Left: 2, WayBack: a.File, Next: c.File}},
		{"the last try", "c", []Program{a, exhausted}, nil, nil, Boot{File: exhausted.File, Version: "1.0.2", Trying: true, WayBack: a.File, Next: a.File}},
		{"came back", "a", []Program{a, exhausted}, nil, nil, Boot{File: a.File, Version: "1.0.1", Lost: []Release{{"1.0.2", hash("c")}}, Next: a.File}},
		{"came back, known", "a", []Program{a, exhausted}, nil, Quarantine{{Release: Release{"1.0.2", hash("c")}}}, Boot{File: a.File, Version: "1.0.1", Next: a.File}},
		{"armed", "a", []Program{a, armed}, nil, nil, Boot{File: a.File, Version: "1.0.1", Next: "proa_1.0.2+3.efi"}},
		{"no way back", "c", []Program{c}, nil, nil, Boot{File: c.File, Version: "1.0.2", Trying: true, Left: 2, Next: c.File}},
		{"a leftover of the same release", "a", []Program{{"proa_1.0.1+0-1.efi", hash("a")}, a}, nil, nil, Boot{File: a.File, Version: "1.0.1", Next: a.File}},
		{"unknown", "x", []Program{a, {"notes.txt", hash("x")}}, nil, nil, Boot{WayBack: a.File, Next: a.File}},
		{"an unreadable one", "a", []Program{a, {"proa_1.0.2+0-3.efi", digest.SHA256{}}}, nil, nil, Boot{File: a.File, Version: "1.0.1", Next: a.File}},
		{"a try under a BIOS", "c", []Program{a, armed}, slot.Counts{armed.File: 1}, nil, Boot{File: armed.File, Version: "1.0.2", Trying: true, Left: 1, WayBack: a.File, Next: armed.File}},
		{"the last try under a BIOS", "c", []Program{a, armed}, slot.Counts{armed.File: 0}, nil, Boot{File: armed.File, Version: "1.0.2", Trying: true, WayBack: a.File, Next: a.File}},
		{"came back under a BIOS", "a", []Program{a, armed}, slot.Counts{armed.File: 0}, nil, Boot{File: a.File, Version: "1.0.1", Lost: []Release{{"1.0.2", hash("c")}}, Next: a.File}},
		{"good, counted before", "a", []Program{a}, slot.Counts{a.File: 0, "proa_1.0.1+3.efi": 0}, nil, Boot{File: a.File, Version: "1.0.1", Next: a.File}},
	} {
		got := Judge(hash(x.running), x.programs, x.counts, x.q)
		if len(got.Lost) != len(x.want.Lost) || len(got.Lost) > 0 && got.Lost[0] != x.want.Lost[0] {
			t.Errorf("%s: lost %v, want %v", x.name, got.Lost, x.want.Lost)
		}
		got.Lost, x.want.Lost = nil, nil
		if got.File != x.want.File || got.Version != x.want.Version || got.Trying != x.want.Trying || got.Left != x.want.Left ||
			got.WayBack != x.want.WayBack || got.Next != x.want.Next {
			t.Errorf("%s: got %+v, want %+v", x.name, got, x.want)
		}
	}
}

func TestQuarantine(t *testing.T) {
	var q Quarantine
	q = q.Add(Quarantined{Release: Release{"1.0.2", hash("c")}, Reason: "first"})
	q = q.Add(Quarantined{Release: Release{"1.0.2", hash("c")}, Reason: "second"})
	q = q.Add(Quarantined{Release: Release{"1.0.3", hash("d")}, Reason: "other"})
	if len(q) != 2 || q.Find(hash("c")).Reason != "first" || q.FindVersion("1.0.3") == nil || q.Find(hash("e")) != nil {
		t.Errorf("got %+v", q)
	}
}

func TestWhy(t *testing.T) {
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	q := Quarantine{{Release: Release{"1.0.2", hash("c")}, Reason: "kernel panic", Time: at}}
	offer := func(v string) *Check { return &Check{Time: at, Channel: "stable", Offered: v} }
	for _, c := range []struct {
		boot Boot
		m    Machine
		want string
	}{
		{Boot{Trying: true, Left: 2}, Machine{Phase: Trying}, "runs 1.0.1 on trial: its health check decides, 2 tries are left"},
		{Boot{}, Machine{}, "runs 1.0.1: has not looked for a newer release yet"},
		{Boot{}, Machine{Phase: Armed, Target: &Release{Version: "1.0.3"}}, "runs 1.0.1: release 1.0.3 is written and armed, the next boot tries it"},
		{Boot{}, Machine{Phase: Writing}, "runs 1.0.1 and is writing"},
		{Boot{}, Machine{Check: &Check{Error: "no route"}}, "runs 1.0.1: the last look for a newer release failed: no route"},
		{Boot{}, Machine{Check: offer("1.0.2")}, "stays on 1.0.1: release 1.0.2 is quarantined since 2026-01-01 12:00: kernel panic"},
		{Boot{}, Machine{Check: offer("1.0.1")}, "runs 1.0.1, the release of channel stable"},
		{Boot{}, Machine{Check: offer("1.0.0")}, "stays on 1.0.1: channel stable offers the older 1.0.0, and machines never go back by plan"},
		{Boot{}, Machine{Check: offer("1.0.3")}, "runs 1.0.1: release 1.0.3 is there, updatectl apply installs it"},
		{Boot{}, Machine{Phase: Failed, Error: "cut", Check: offer("1.0.3")}, "stays on 1.0.1: release 1.0.3 could not be installed: cut"},
		{Boot{}, Machine{Check: &Check{Offered: "1.0.3", Held: "release 1.0.3 is halted on channel stable"}}, "stays on 1.0.1: release 1.0.3 is halted on channel stable"},
	} {
		got := Why("1.0.1", c.boot, c.m, q)
		if got != c.want || strings.Contains(got, "\n") {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
	}
}
