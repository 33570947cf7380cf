package state

import (
	"testing"

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
		got := Judge(hash(x.running), x.programs, x.counts, x.q, Orders{})
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

// A rollback by hand is no failure of what it leaves, before and after its reboot.
func TestJudgeRolledBack(t *testing.T) {
	programs := []Program{{"proa_1.0.0.efi", hash("b")}, {"proa_1.0.1+0-1.efi", hash("a")}}
	o := Orders{Back: &Back{From: Release{"1.0.1", hash("a")}, To: Release{"1.0.0", hash("b")}}}
	if got := Judge(hash("a"), programs, nil, nil, o); !got.Leaving || got.Trying || got.Next != "proa_1.0.0.efi" {
		t.Errorf("before the reboot: %+v", got)
	}
	if got := Judge(hash("b"), programs, nil, nil, o); got.Leaving || got.Trying || len(got.Lost) != 0 {
		t.Errorf("after it: %+v", got)
	}
	if got := Judge(hash("a"), programs[1:], nil, nil, o); got.Leaving || !got.Trying {
		t.Errorf("nothing else is there: %+v", got)
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
	left, gone := q.Without("1.0.2")
	if len(left) != 1 || len(gone) != 1 || left[0].Version != "1.0.3" || len(q) != 2 {
		t.Errorf("without 1.0.2: %+v and %+v", left, gone)
	}
}
