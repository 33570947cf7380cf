package stage

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/ignition/apply"
	"github.com/proa-os/proa/ignition/clevis"
	"github.com/proa-os/proa/ignition/tang"
)

// A server that does not answer is asked again, and whoever reads the screen learns which it is. One that answers something else is not.
func TestPatiently(t *testing.T) {
	of := func(err error) error {
		return fmt.Errorf("bind: %w", &clevis.ServerError{URL: "http://h", Thumbprint: "key", Err: err})
	}
	for name, tc := range map[string]struct {
		err   error
		again bool
		want  string
	}{
		"refused":   {of(errors.New("connection refused")), true, "cannot use the tang server http://h"},
		"away":      {of(tang.StatusError(503)), true, "503 Service Unavailable"},
		"no key":    {of(tang.StatusError(404)), false, "cannot use the tang server http://h"},
		"untrusted": {fmt.Errorf("%w: x", clevis.ErrUntrusted), false, "not to be trusted"},
		"other":     {errors.New("cryptsetup: x"), false, "cryptsetup: x"},
	} {
		tries, said := 0, 0
		err := patiently(t.Context(), 300*time.Millisecond, func(error) { said++ }, func(context.Context) error { tries++; return tc.err })
		if (tries > 1) != tc.again || (said > 0) != tc.again {
			t.Errorf("%s: tried %d times, said %d", name, tries, said)
		}
		text := fmt.Sprint(err)
		if p := new(apply.Problem); errors.As(err, &p) {
			text = p.What + ", " + p.Expected + ", " + p.Found + ", " + p.Next
		}
		if !strings.Contains(text, tc.want) {
			t.Errorf("%s: got %s, want %q", name, text, tc.want)
		}
	}
	tries := 0
	err := patiently(t.Context(), time.Minute, func(error) {}, func(context.Context) error {
		if tries++; tries < 2 {
			return of(tang.StatusError(503))
		}
		return nil
	})
	if err != nil || tries != 2 {
		t.Errorf("a server that comes back: %v after %d tries", err, tries)
	}
}
