package vm

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
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

// TestProbeKVM probes QEMUs that behave as those on bad hosts do: each ends in a verdict within its time, which is kept.
func TestProbeKVM(t *testing.T) {
	for _, tt := range []struct {
		mode  string
		limit time.Duration
		want  Accelerator
		why   string
	}{
		{"works", time.Minute, KVM, "a guest came up in it"},
		{"hangs", 2 * time.Second, TCG, "the guest did not come up within 2s"},
		{"talks", 2 * time.Second, TCG, "the guest did not come up within 2s"}, // firmware, but no kernel
		{"mute", 2 * time.Second, TCG, "the guest did not come up within 2s"},  // not even a monitor
		{"dies", time.Minute, TCG, "could not access KVM kernel module"},
		{"internal error", time.Minute, TCG, errInternal.Error()},
		{"resets", time.Minute, TCG, "the guest ended before its first process"},
	} {
		t.Run(tt.mode, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			cmd := func([]string) *exec.Cmd {
				c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFakeQEMU$")
				c.Env = append(os.Environ(), "PROA_FAKE_QEMU="+tt.mode)
				return c
			}
			probes := 0
			h := host{
				bootID: func() string { return "now" }, openKVM: func() error { return nil }, file: filepath.Join(dir, "verdict"),
				probe: func() error { probes++; return probeKVM(t.Context(), cmd, hardware{}, dir, tt.limit) },
			}
			begin := time.Now()
			for range 2 {
				v, err := chooseAccelerator(h)
				if err != nil || v.Use != tt.want || !strings.Contains(v.Why, tt.why) {
					t.Errorf("got %+v, %v, want %s because %q", v, err, tt.want, tt.why)
				}
			}
			if probes != 1 {
				t.Errorf("got %d probes, want the verdict remembered", probes)
			}
			if took := time.Since(begin); took > 30*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// TestFakeQEMU is the QEMU of TestProbeKVM: a console on descriptor 3, a monitor on 4.
func TestFakeQEMU(t *testing.T) {
	mode := os.Getenv("PROA_FAKE_QEMU")
	if mode == "" {
		t.Skip("run by TestProbeKVM")
	}
	console, monitor := os.NewFile(3, "console"), os.NewFile(4, "monitor")
	switch mode {
	case "dies":
		fmt.Fprintln(os.Stderr, "qemu: could not access KVM kernel module")
		os.Exit(1)
	case "mute":
		time.Sleep(time.Hour)
	}
	fmt.Fprintln(monitor, greeting)
	for in := bufio.NewScanner(monitor); in.Scan(); {
		var c struct {
			Execute string
			ID      int
		}
		if err := json.Unmarshal(in.Bytes(), &c); err != nil {
			os.Exit(2)
		}
		switch c.Execute {
		case "query-status":
			fmt.Fprintf(monitor, `{"return":{"status":"internal-error"},"id":%d}`+"\n", c.ID)
			continue
		case "quit":
			os.Exit(0)
		}
		fmt.Fprintf(monitor, `{"return":{},"id":%d}`+"\n", c.ID)
		switch mode { // The guest runs.
		case "works":
			fmt.Fprint(console, "[    1.0] Run /init as init process\r\n")
		case "talks":
			fmt.Fprint(console, "BdsDxe: starting Boot0001\r\n")
		case "internal error":
			fmt.Fprintln(monitor, `{"event":"STOP"}`)
		case "resets":
			fmt.Fprintln(monitor, `{"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-reset"}}`)
		}
	}
}
