package qemutests

import (
	"testing"
)

// TestManyEndings goes on from one boot several times: the machine does not notice, and what an ending did is undone
// by the next.
func TestManyEndings(t *testing.T) {
	s := begin(t)
	m := s.goOn("endings")
	boots(t, m, "1.0.0")
	m.AssertClean(t)
	run(t, m, "echo before >/var/lib/ending && sync")
	id := run(t, m, "cat /proc/sys/kernel/random/boot_id")
	if err := m.Snapshot(t.Context(), "up"); err != nil {
		t.Fatal(err)
	}
	for name, ending := range map[string]func(t *testing.T){
		"write": func(t *testing.T) { run(t, m, "echo after >/var/lib/ending && sync") },
		"power cut": func(t *testing.T) {
			run(t, m, "rm /var/lib/ending")
			if err := m.PowerCut(); err != nil {
				t.Fatal(err)
			}
		},
		"shutdown": func(t *testing.T) {
			if err := m.Shutdown(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			ending(t)
			if err := m.Restore(t.Context(), "up"); err != nil {
				t.Fatal(err)
			}
			if got := run(t, m, "cat /proc/sys/kernel/random/boot_id /var/lib/ending"); got != id+"\nbefore" {
				t.Errorf("got boot and file %q, want %q as before", got, id)
			}
			m.AssertClean(t)
		})
	}
	if got := m.Boots(); got != 1 {
		t.Errorf("got %d boots, want the first one only", got)
	}
}
