package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	godbus "github.com/godbus/dbus/v5"
)

func TestOSVersion(t *testing.T) {
	name := filepath.Join(t.TempDir(), "os-release")
	for in, want := range map[string]string{
		"ID=proa\nIMAGE_VERSION=1.0.1\nVERSION_ID=9\n": "1.0.1",
		"IMAGE_VERSION=\"1.0.1-rc.1\"\n":               "1.0.1-rc.1",
		"IMAGE_VERSION=1.0.1~rc.1-2\n":                 "1.0.1-rc.1-2",
	} {
		if err := os.WriteFile(name, []byte(in), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := osVersion(name); err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
		}
	}
	if err := os.WriteFile(name, []byte("ID=debian\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := osVersion(name); err == nil || !strings.Contains(err.Error(), "no IMAGE_VERSION") {
		t.Errorf("another system: %v", err)
	}
}

// Connecting to a service manager that hangs heeds no context.
func TestWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, end := time.Now(), make(chan struct{})
		defer close(end)
		_, err := within(t.Context(), patience, func(context.Context) (int, error) { <-end; return 1, nil })
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != patience {
			t.Errorf("got %v after %s", err, time.Since(start))
		}
		if v, err := within(t.Context(), patience, func(context.Context) (int, error) { return 7, nil }); v != 7 || err != nil {
			t.Errorf("got %d, %v", v, err)
		}
	})
}

func TestGoingDown(t *testing.T) {
	refused := godbus.Error{Name: "org.freedesktop.systemd1.TransactionIsDestructive"}
	if !goingDown(fmt.Errorf("ask systemd: %w", refused)) || goingDown(godbus.Error{Name: "org.freedesktop.systemd1.NoSuchUnit"}) || goingDown(os.ErrClosed) {
		t.Error("a shutdown under way is not told from other refusals")
	}
}
