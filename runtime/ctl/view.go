package ctl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/proa-os/proa/runtime/run"
	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/unit"
)

// view is one container for ps and inspect.
type view struct {
	*store.Container
	Status  string         `json:"status"` // created, starting, running, paused, restarting, stopping, exited, failed
	Since   time.Time      `json:"since,omitzero"`
	Pid     int            `json:"pid,omitempty"`
	Unit    string         `json:"unit"`
	Exit    *store.Exit    `json:"exit,omitempty"`    // of the last run that ended
	State   *healthState   `json:"healthy,omitempty"` // of this run
	Runtime *run.Container `json:"runtime,omitempty"`
}

// views joins what was asked for, what systemd says and what oci-runtime says.
func (e *Env) views(ctx context.Context, ks []*store.Container) ([]view, error) {
	s, err := e.open()
	if err != nil {
		return nil, err
	}
	var units []string
	for _, k := range ks {
		units = append(units, unit.Of(k))
	}
	states := map[string]unit.Status{}
	if len(units) > 0 {
		if states, err = e.Units.Status(ctx, units); err != nil {
			return nil, err
		}
	}
	var out []view
	for _, k := range ks {
		v := view{Container: k, Unit: unit.Of(k)}
		if v.Exit, err = s.Exit(k.Name); err != nil {
			return nil, err
		}
		st, err := e.OCIRoot.Load(k.Name)
		if err != nil && !errors.Is(err, run.ErrNotExist) {
			return nil, err
		}
		alive := err == nil && (st.Status == specs.StateRunning || st.Status == run.StatePaused)
		v.Status = status(states[v.Unit], alive, v.Exit)
		switch {
		case alive:
			v.Runtime, v.Pid, v.Since = st, st.Pid, st.Created
			v.State = e.readHealth(k)
			if v.Status == "running" && frozen(st.Pid) {
				v.Status = "paused"
			}
		case v.Exit != nil && v.over():
			v.Since = v.Exit.Finished
		}
		out = append(out, v)
	}
	return out, nil
}

// status puts systemd's words into the ones docker users know.
func status(s unit.Status, process bool, x *store.Exit) string {
	switch {
	case s.Active == "active" && process:
		return "running"
	case s.Sub == "auto-restart" || s.Sub == "auto-restart-queued":
		return "restarting"
	case s.Active == "activating" || s.Active == "reloading":
		return "starting"
	case s.Active == "deactivating":
		return "stopping"
	case s.Active == "active": // the workload has ended this moment, and systemd has not noticed, or has not told ended
		return "stopping"
	case x != nil && !x.Started.IsZero():
		return "exited"
	case s.Active == "failed" || x != nil:
		return "failed"
	}
	return "created"
}

// over reports whether the container does not run, and will not by itself.
func (v *view) over() bool {
	return v.Status == "created" || v.Status == "exited" || v.Status == "failed"
}

// ending reports whether the workload has ended and systemd is not done with that.
func (v *view) ending() bool { return v.Status == "stopping" && v.Pid == 0 }

// text says it to people: "up 3 minutes (healthy)".
func (v *view) text(now time.Time) string {
	switch {
	case v.Status == "running" || v.Status == "paused":
		t := "up " + ago(now.Sub(v.Since))
		if v.Status == "paused" {
			t += " (paused)"
		} else if v.State != nil {
			t += " (" + v.State.Status + ")"
		}
		return t
	case v.Status == "exited":
		return v.Exit.String() + " " + ago(now.Sub(v.Since)) + " ago"
	case v.Status == "restarting" && v.Exit != nil:
		return "restarting (" + v.Exit.String() + ")"
	}
	return v.Status
}

// ago is a duration as people say it.
func ago(d time.Duration) string {
	for _, u := range []struct {
		name string
		size time.Duration
	}{{"day", 24 * time.Hour}, {"hour", time.Hour}, {"minute", time.Minute}} {
		if n := d / u.size; n > 1 {
			return fmt.Sprintf("%d %ss", n, u.name)
		}
	}
	return fmt.Sprintf("%d seconds", max(d, 0)/time.Second)
}
