package retry

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// Pauses grow from 200 ms to 5 s, are partly by chance, and the total ends them with the last error.
func TestPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		start := time.Now()
		err := Do(t.Context(), time.Minute, func(context.Context) error {
			at = append(at, time.Since(start))
			return fmt.Errorf("ask: %w", Temporary(errors.New("refused")))
		})
		if err == nil || err.Error() != "gave up after 1m0s: ask: refused" || time.Since(start) != time.Minute {
			t.Errorf("got %v after %s", err, time.Since(start))
		}
		whole, chance := firstPause, false
		for n := 1; n < len(at); n++ {
			pause := at[n] - at[n-1]
			if pause < whole/2 || pause > whole {
				t.Errorf("pause %d: got %s, want %s to %s", n, pause, whole/2, whole)
			}
			chance = chance || pause != whole
			whole = min(2*whole, longestPause)
		}
		if len(at) < 12 || !chance {
			t.Errorf("got %d tries at %v", len(at), at)
		}
	})
}

// Without a total only the caller ends it.
func TestNoTotal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		start := time.Now()
		err := Do(ctx, 0, func(context.Context) error { return Temporary(errors.New("refused")) })
		if err == nil || err.Error() != "gave up: refused" || time.Since(start) != 24*time.Hour {
			t.Errorf("got %v after %s", err, time.Since(start))
		}
	})
}

// A try that the total cuts short says nothing of why the others did not succeed.
func TestCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls int
		err := Do(t.Context(), time.Minute, func(ctx context.Context) error {
			if calls++; calls == 1 {
				return Temporary(errors.New("refused"))
			}
			<-ctx.Done()
			return fmt.Errorf("ask: %w", Temporary(ctx.Err()))
		})
		if err == nil || err.Error() != "gave up after 1m0s: refused" || calls != 2 {
			t.Errorf("got %v after %d calls", err, calls)
		}
	})
}

func TestFinalErrors(t *testing.T) {
	var calls int
	final := errors.New("not found")
	err := Do(t.Context(), time.Minute, func(context.Context) error {
		if calls++; calls == 1 {
			return Temporary(errors.New("busy"))
		}
		return final
	})
	if !errors.Is(err, final) || calls != 2 || IsTemporary(err) {
		t.Errorf("got %v after %d calls", err, calls)
	}
}

// Who cancels is told the last error and does not wait.
func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	err := Do(ctx, time.Hour, func(context.Context) error {
		cancel()
		return Temporary(errors.New("refused"))
	})
	if err == nil || err.Error() != "gave up: refused" {
		t.Errorf("got %v", err)
	}
}
