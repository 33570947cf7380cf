package plan

import (
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"good", `{"format":1,"channel":"stable","release":"1.0.1"}`, ""},
		{"newer writer", `{"format":1,"channel":"stable","release":"1.0.1","waves":[1,2]}`, ""},
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
	if got := p.Held(at.Add(-time.Second)); got != "release 1.0.1 is planned for 2026-01-31T06:00:00Z" {
		t.Errorf("a second early: %q", got)
	}
	if got := p.Held(at); got != "" {
		t.Errorf("in time: %q", got)
	}
	p.Halted = true
	if got := p.Held(at); !strings.Contains(got, "halted") {
		t.Errorf("halted: %q", got)
	}
	for _, channel := range []string{"", "..", "a/b", "Stable", "-x"} {
		if _, err := (Plan{Channel: channel, Release: "1.0.1"}).Marshal(); err == nil {
			t.Errorf("channel %q was accepted", channel)
		}
	}
}
