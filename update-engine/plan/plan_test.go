package plan

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"good", `{"format":1,"channel":"stable","release":"1.0.1"}`, ""},
		{"newer writer", `{"format":1,"channel":"stable","release":"1.0.1","tides":[1,2]}`, ""},
		{"waves", `{"format":1,"channel":"stable","release":"1.0.1","waves":[{"from":"2026-01-31T06:00:00Z","percent":5},{"from":"2026-02-01T06:00:00Z","percent":100}]}`, ""},
		{"wave of nobody", `{"format":1,"channel":"stable","release":"1.0.1","waves":[{"from":"2026-01-31T06:00:00Z","percent":0}]}`, "wave 1 takes 0 %"},
		{"wave of more than all", `{"format":1,"channel":"stable","release":"1.0.1","waves":[{"from":"2026-01-31T06:00:00Z","percent":101}]}`, "wave 1 takes 101 %"},
		{"wave without a time", `{"format":1,"channel":"stable","release":"1.0.1","waves":[{"percent":5}]}`, "expected a time"},
		{"shrinking waves", `{"format":1,"channel":"stable","release":"1.0.1","waves":[{"from":"2026-01-31T06:00:00Z","percent":5},{"from":"2026-02-01T06:00:00Z","percent":5}]}`, "wave 2 (5 % from 2026-02-01T06:00:00Z) is not later and larger"},
		{"waves back in time", `{"format":1,"channel":"stable","release":"1.0.1","waves":[{"from":"2026-01-31T06:00:00Z","percent":5},{"from":"2026-01-31T06:00:00Z","percent":50}]}`, "is not later and larger"},
		{"newer format", `{"format":2,"channel":"stable","release":"1.0.1"}`, "format 2"},
		{"no format", `{"channel":"stable","release":"1.0.1"}`, "format 0"},
		{"other channel", `{"format":1,"channel":"beta","release":"1.0.1"}`, `plan of channel "beta"`},
		{"no release", `{"format":1,"channel":"stable"}`, `release ""`},
		{"not a version", `{"format":1,"channel":"stable","release":"../../x"}`, `release "../../x"`},
		{"data behind", `{"format":1,"channel":"stable","release":"1.0.1"} x`, "parse plan"},
		{"garbage", "<html>", "parse plan of channel stable"},
	} {
		_, err := Parse([]byte(c.in), "stable")
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

func TestRoundTripAndHeld(t *testing.T) {
	at := time.Date(2026, 1, 31, 6, 0, 0, 0, time.UTC)
	b, err := Plan{Channel: "stable", Release: "1.0.1", NotBefore: &at, Urgent: true}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Parse(b, "stable")
	if err != nil {
		t.Fatal(err)
	}
	if !p.Urgent {
		t.Error("it is urgent no more")
	}
	if got := p.Held(at.Add(-time.Second), 0); got != "release 1.0.1 is planned for 2026-01-31T06:00:00Z" {
		t.Errorf("a second early: %q", got)
	}
	if got := p.Held(at, 0); got != "" {
		t.Errorf("in time: %q", got)
	}
	p.Halted = true
	if got := p.Held(at, 0); !strings.Contains(got, "halted") {
		t.Errorf("halted: %q", got)
	}
	for _, channel := range []string{"", "..", "a/b", "Stable", "-x"} {
		if _, err := (Plan{Channel: channel, Release: "1.0.1"}).Marshal(); err == nil {
			t.Errorf("channel %q was accepted", channel)
		}
	}
}

// Each wave lets in the places below its percentage, from its time on, and nobody who was in falls out.
func TestWaves(t *testing.T) {
	begin := time.Date(2026, 1, 31, 6, 0, 0, 0, time.UTC)
	p := Plan{Channel: "stable", Release: "1.0.1", Waves: []Wave{{begin, 5}, {begin.Add(time.Hour), 40}}}
	for _, c := range []struct {
		after time.Duration
		place Place
		want  string
	}{
		{-time.Second, 0, "the wave of 2026-01-31T06:00:00Z, which takes 5 %"},
		{0, 4, ""},
		{0, 5, "the wave of 2026-01-31T07:00:00Z, which takes 40 %"},
		{time.Hour, 4, ""},
		{time.Hour, 39, ""},
		{time.Hour, 40, "goes to 40 % of channel stable for now"},
		{9999 * time.Hour, 99, "goes to 40 %"},
	} {
		if got := p.Held(begin.Add(c.after), c.place); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("place %d after %s: got %q, want %q", c.place, c.after, got, c.want)
		}
	}
}

// Places are spread evenly over machines, and are others for another release.
func TestPlaceOf(t *testing.T) {
	var first, same int
	for i := range 10000 {
		id := fmt.Appendf(nil, "%032x", i)
		a, b := PlaceOf(id, "1.0.1"), PlaceOf(id, "1.0.2")
		if a < 0 || a > 99 || a != PlaceOf(id, "1.0.1") {
			t.Fatalf("got place %d, and then %d", a, PlaceOf(id, "1.0.1"))
		}
		if a < 10 {
			first++
		}
		if a == b {
			same++
		}
	}
	if first < 900 || first > 1100 || same < 50 || same > 150 {
		t.Errorf("of 10000 machines %d are among the first tenth, and %d have the same place for two releases; expected about 1000 and 100", first, same)
	}
	if got := PlaceOf(nil, "1.0.1"); got != 99 {
		t.Errorf("without an id: place %d, want 99", got)
	}
}
