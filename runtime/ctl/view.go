package ctl

import (
	"context"
	"errors"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/proa-os/proa/runtime/run"
	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/unit"
)

// view is one container for ps and inspect.
type view struct {
	*store.Container
	Status  string         `json:"status"` // running, restarting, stopped, failed, starting, stopping
	Pid     int            `json:"pid,omitempty"`
	Unit    string         `json:"unit,omitempty"`
	Runtime *run.Container `json:"runtime,omitempty"`
}

// views joins what was asked for, what systemd says and what oci-runtime says.
func (e *Env) views(ctx context.Context, cs []*store.Container) ([]view, error) {
	var units []string
	for _, c := range cs {
		if c.Restart != "" {
			units = append(units, unit.Of(c))
		}
	}
	states := map[string]unit.Status{}
	if len(units) > 0 {
		var err error
		if states, err = e.Units.Status(ctx, units); err != nil {
			return nil, err
		}
	}
	var out []view
	for _, c := range cs {
		v := view{Container: c, Status: "stopped"}
		if st, err := e.OCIRoot.Load(c.Name); err == nil {
			v.Runtime, v.Pid = st, st.Pid
			if st.Status == specs.StateRunning {
				v.Status = "running"
			}
		} else if !errors.Is(err, run.ErrNotExist) {
			return nil, err
		}
		if c.Restart != "" {
			v.Unit = unit.Of(c)
			v.Status = status(states[v.Unit], v.Status == "running")
		}
		out = append(out, v)
	}
	return out, nil
}

// status puts systemd's words into the ones docker users know.
func status(s unit.Status, process bool) string {
	switch {
	case s.Active == "active" && process:
		return "running"
	case s.Sub == "auto-restart" || s.Sub == "auto-restart-queued":
		return "restarting"
	case s.Active == "activating" || s.Active == "reloading":
		return "starting"
	case s.Active == "deactivating":
		return "stopping"
	case s.Active == "failed":
		return "failed"
	}
	return "stopped"
}
