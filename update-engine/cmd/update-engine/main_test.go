package main

import (
	"runtime/debug"
	"strings"
	"testing"
)

// The program decides how early garbage is collected, before it opens anything: the packages that it uses do not.
func TestServesFrugally(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")
	if err := serve(t.Context()); err == nil {
		t.Fatal("it serves without a machine")
	}
	if got := debug.SetGCPercent(100); got >= 50 {
		t.Errorf("GC percent %d while it serves", got)
	}
}

func TestArguments(t *testing.T) {
	for _, args := range [][]string{nil, {"server"}, {"serve", "now"}, {"end-try"}} {
		if err := run(t.Context(), args); err == nil || !strings.Contains(err.Error(), "updatectl") {
			t.Errorf("%q: got %v", args, err)
		}
	}
}
