package ctl

import (
	"context"
	"testing"
	"time"

	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/unit"
)

// stopping is a systemd that is not done with an end for a while.
type stopping struct {
	*units
	looks int
}

func (s *stopping) Status(_ context.Context, names []string) (map[string]unit.Status, error) {
	out := map[string]unit.Status{}
	for _, n := range names {
		out[n] = unit.Status{Load: "loaded", Active: "deactivating", Sub: "stop-post"}
		if s.looks--; s.looks < 0 {
			out[n] = unit.Status{Load: "loaded", Active: "inactive", Sub: "dead"}
		}
	}
	return out, nil
}

func (s *stopping) Stop(context.Context, string) error { return nil }

// TestWaitLate: who comes to wait when the end is noted, and systemd is not done with it, waits for no other one; and what has ended can be
// renamed and removed.
func TestWaitLate(t *testing.T) {
	e := testEnv(t.TempDir())
	e.Units = &stopping{e.Units.(*units), 5}
	k := &store.Container{Name: "x", Restart: "no"}
	add(t, e, k)
	s, err := e.open()
	if err == nil {
		err = s.SetExit(k, &store.Exit{Code: 4, Started: time.Now(), Finished: time.Now()})
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if x, err := (&call{Env: e, store: s}).waitFor(ctx, k); err != nil || x == nil || x.Code != 4 {
		t.Errorf("got %+v, %v", x, err)
	}
	for _, c := range [][]string{{"wait", "x"}, {"rm", "x"}} {
		e.Units = &stopping{e.Units.(*stopping).units, 3}
		if out, code := inside(t, e, c...); code != 0 {
			t.Errorf("%q: exit %d: %s", c, code, out)
		}
	}
}
