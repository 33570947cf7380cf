package agent_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/grubenv"
	"github.com/proa-os/proa/internal/slot"
)

// newBIOSMachine is a machine on which GRUB counts beside the names.
func newBIOSMachine(t *testing.T) *machine {
	m := newMachine(t)
	m.bios = true
	m.write("esp/"+grubenv.File, grubenv.Empty())
	return m
}

// grub chooses and counts, as the real one does.
func (m *machine) grub() (file string, ok bool) {
	m.t.Helper()
	next, after, ok := slot.ChooseBIOS(m.esp(), m.counts())
	m.write("esp/"+grubenv.File, block(after))
	return next, ok
}

func (m *machine) counts() slot.Counts {
	m.t.Helper()
	b, err := os.ReadFile(filepath.Join(m.dir, "esp", grubenv.File))
	if err != nil {
		m.t.Fatal(err)
	}
	counts, err := grubenv.Parse(b)
	if err != nil {
		m.t.Fatal(err)
	}
	return counts
}

func (m *machine) wantCounts(want slot.Counts) {
	m.t.Helper()
	if got := m.counts(); !maps.Equal(got, want) {
		m.t.Errorf("GRUB has counted %v, want %v", got, want)
	}
}

// block is what GRUB writes.
func block(counts slot.Counts) []byte {
	var words []string
	for _, f := range slices.Sorted(maps.Keys(counts)) {
		words = append(words, fmt.Sprintf("%s=%d", f, counts[f]))
	}
	b := bytes.TrimRight(grubenv.Empty(), "#")
	b = append(b, "tries="+strings.Join(words, " ")+"\n"...)
	return append(b, bytes.Repeat([]byte("#"), grubenv.Size-len(b))...)
}

func TestUpdateUnderBIOS(t *testing.T) {
	m := newBIOSMachine(t)
	m.release("1.0.1")
	if _, err := m.apply(); err != nil {
		t.Fatal(err)
	}
	m.boot()
	m.wantRuns("1.0.1")
	m.wantESP("proa_1.0.0.efi", "proa_1.0.1+3.efi")
	m.wantCounts(slot.Counts{"proa_1.0.1+3.efi": 2})
	if got := m.why(); !strings.Contains(got, "on trial") || !strings.Contains(got, "2 tries") {
		t.Errorf("why: %s", got)
	}
	if err := m.health(nil); err != nil {
		t.Fatal(err)
	}
	m.wantESP("proa_1.0.0.efi", "proa_1.0.1.efi")
	m.boot()
	m.wantRuns("1.0.1")
	m.release("1.0.2")
	m.update()
	m.wantRuns("1.0.2")
	m.wantCounts(slot.Counts{"proa_1.0.2+3.efi": 2}) // of its name before it was good
}

// The tries of a release whose kernel panics run out in the block alone: it must be recognised all the same.
func TestKernelPanicsUnderBIOS(t *testing.T) {
	m := newBIOSMachine(t)
	m.release("1.0.1")
	if _, err := m.apply(); err != nil {
		t.Fatal(err)
	}
	for range slot.Tries {
		m.boot()
		m.wantRuns("1.0.1")
	}
	m.boot()
	m.wantRuns("1.0.0")
	m.wantESP("proa_1.0.0.efi", "proa_1.0.1+3.efi")
	m.wantCounts(slot.Counts{"proa_1.0.1+3.efi": 0})
	if err := m.health(nil); err != nil {
		t.Fatal(err)
	}
	m.wantBad("1.0.1", "tries are used up")
	m.release("1.0.2")
	m.update()
	m.wantRuns("1.0.2")
}

func TestUnhealthyTryUnderBIOS(t *testing.T) {
	m := newBIOSMachine(t)
	m.release("1.0.1")
	if _, err := m.apply(); err != nil {
		t.Fatal(err)
	}
	m.boot()
	if err := m.health(errors.New("web: not running")); err == nil || !m.rebooted {
		t.Fatalf("health: %v, rebooted %v", err, m.rebooted)
	}
	m.wantESP("proa_1.0.0.efi", "proa_1.0.1+0-1.efi")
	m.boot()
	m.wantRuns("1.0.0")
	m.wantBad("1.0.1", "workload: web: not running")
}

// A block that was lost, to a repair of the file system say, is made anew: without it GRUB would never try a release again.
func TestLostBlockUnderBIOS(t *testing.T) {
	m := newBIOSMachine(t)
	if err := os.Remove(filepath.Join(m.dir, "esp", grubenv.File)); err != nil {
		t.Fatal(err)
	}
	m.release("1.0.1")
	if _, err := m.apply(); err != nil {
		t.Fatal(err)
	}
	m.wantCounts(slot.Counts{})
	if next, ok := m.grub(); !ok || next != "proa_1.0.1+3.efi" {
		t.Errorf("GRUB starts %q", next)
	}
}
