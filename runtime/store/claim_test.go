package store

import (
	"errors"
	"testing"
	"time"
)

// TestHoldStart: who starts a container and who removes or renames it exclude each other, and a starter that has waited is told.
func TestHoldStart(t *testing.T) {
	s := open(t)
	f := fetch(t, "content", same)
	if err := f.importTo(t, s, "example.org/a:1"); err != nil {
		t.Fatal(err)
	}
	c := &Container{Name: "x", Manifest: f.top, Network: "none", Restart: "no", Remove: true, Instance: "1"}
	if err := s.AddContainer(c); err != nil {
		t.Fatal(err)
	}
	release, err := s.HoldStart(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.SeizeStart(c); ok || err != nil {
		t.Errorf("seized while it starts: %v, %v", ok, err)
	}
	if again, err := s.HoldStart(c); err != nil {
		t.Errorf("two that start it: %v", err)
	} else {
		again()
	}
	release()
	seized, ok, err := s.SeizeStart(c)
	if !ok || err != nil {
		t.Fatalf("nobody starts it: %v, %v", ok, err)
	}
	waited := make(chan error, 1)
	go func() {
		_, err := s.HoldStart(c)
		waited <- err
	}()
	select {
	case err := <-waited:
		t.Errorf("a start goes on while it is removed: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	// Another one of the name is there when the starter is let go on.
	unlock, err := s.Lock()
	if err == nil {
		err = errors.Join(s.RemoveContainer(c), s.AddContainer(&Container{Name: "x", Manifest: f.top, Network: "none", Restart: "no", Remove: true, Instance: "2"}))
		unlock()
	}
	if err != nil {
		t.Fatal(err)
	}
	seized()
	if err := <-waited; !errors.Is(err, ErrNoContainer) {
		t.Errorf("of one that has gone: %v", err)
	}
	if _, _, err := s.SeizeStart(c); !errors.Is(err, ErrNoContainer) {
		t.Errorf("seize another instance: %v", err)
	}
}
