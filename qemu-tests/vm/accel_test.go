package vm

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestChooseAccelerator(t *testing.T) {
	broken := errors.New("QEMU stopped the guest with an internal error\n  the console is empty")
	tests := []struct {
		name       string
		override   string
		open       error
		probe      error
		remembered string // content of the verdict file
		want       Accelerator
		why        string
		probes     int
	}{
		{name: "works", want: KVM, why: "came up", probes: 1},
		{name: "broken", probe: broken, want: TCG, why: "KVM does not work: QEMU stopped the guest with an internal error", probes: 1},
		{name: "no device", open: os.ErrPermission, want: TCG, why: "no KVM"},
		{name: "asked for tcg", override: "tcg", want: TCG, why: "PROA_ACCEL"},
		{name: "asked for kvm", override: "kvm", probe: broken, want: KVM, why: "PROA_ACCEL"},
		{name: "remembered", remembered: `{"boot_id":"now","use":"tcg","why":"seen"}`, want: TCG, why: "seen"},
		{name: "of another boot", remembered: `{"boot_id":"old","use":"tcg","why":"seen"}`, want: KVM, why: "came up", probes: 1},
		{name: "torn file", remembered: `{"boot_id":"now","use":"`, want: KVM, why: "came up", probes: 1},
		{name: "unknown value", remembered: `{"boot_id":"now","use":"hvf"}`, want: KVM, why: "came up", probes: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "cache", "accelerator.json")
			if tt.remembered != "" {
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(tt.remembered), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			probes := 0
			h := host{
				override: tt.override,
				bootID:   func() string { return "now" },
				openKVM:  func() error { return tt.open },
				file:     file,
				probe:    func() error { probes++; return tt.probe },
			}
			for range 2 { // The second choice remembers the first.
				v, err := chooseAccelerator(h)
				if err != nil {
					t.Fatal(err)
				}
				if v.Use != tt.want || !strings.Contains(v.Why, tt.why) || strings.Contains(v.Why, "\n") {
					t.Errorf("got %+v, want %s because %q", v, tt.want, tt.why)
				}
			}
			if probes != tt.probes {
				t.Errorf("got %d probes, want %d", probes, tt.probes)
			}
		})
	}
}

func TestChooseAcceleratorRefusesOthers(t *testing.T) {
	if _, err := chooseAccelerator(host{override: "xen"}); err == nil || !strings.Contains(err.Error(), "PROA_ACCEL=xen") {
		t.Errorf("got %v, want an error that names the value", err)
	}
}
