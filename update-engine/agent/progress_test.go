package agent

import (
	"testing"
	"time"
)

func TestMeter(t *testing.T) {
	var m meter
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	if got := m.read(at); got != nil {
		t.Errorf("nothing works: %+v", got)
	}
	m.set("check", 0, 0, at)
	m.set("write", 400, 1000, at) // resumed
	m.set("write", 600, 1000, at.Add(2*time.Second))
	if got := m.read(at.Add(2 * time.Second)); got == nil || got.Stage != "write" || got.Done != 600 || got.Rate != 100 || got.Left != 4 || !got.Since.Equal(at) {
		t.Errorf("got %+v", got)
	}
	if got := m.read(at.Add(-time.Hour)); got.Rate != 0 || got.Left != 0 { // the clock was set back
		t.Errorf("got %+v", got)
	}
	m.stop()
	if got := m.read(at); got != nil {
		t.Errorf("after the job: %+v", got)
	}
}
