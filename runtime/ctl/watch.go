package ctl

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/image"
	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/unit"
)

// healthState is what is known about the health of a container's run. It lies in the container's directory of this boot.
type healthState struct {
	Status  string      `json:"status"` // starting, healthy, unhealthy
	Failing int         `json:"failing"`
	Log     []healthTry `json:"log"` // the last five
}

type healthTry struct {
	At     time.Time `json:"at"`
	Took   string    `json:"took"`
	Reason string    `json:"reason,omitempty"` // why it failed
}

func (e *Env) healthFile(k *store.Container) string {
	return filepath.Join(e.bundle(k.Name), "health.json")
}

// readHealth returns nil for a container whose health nobody tries.
func (e *Env) readHealth(k *store.Container) *healthState {
	if k.Health == nil {
		return nil
	}
	h := &healthState{Status: "starting"}
	if b, err := os.ReadFile(e.healthFile(k)); err == nil {
		if json.Unmarshal(b, h) != nil {
			return &healthState{Status: "starting"}
		}
	}
	return h
}

func (e *Env) writeHealth(k *store.Container, h *healthState) error {
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	tmp := e.healthFile(k) + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, e.healthFile(k))
}

// watch begins to try a container's health: systemd has a timer run containerctl try, as long as the unit is up.
func watch(ctx context.Context, c *call) error {
	k, err := c.container(c.args[0])
	if err != nil || !unit.Watched(k) {
		return err
	}
	if err := c.writeHealth(k, &healthState{Status: "starting", Log: []healthTry{}}); err != nil {
		return err
	}
	return c.Units.Watch(ctx, unit.Of(k), k.Health.Interval, []string{"/usr/bin/containerctl", "try", k.Name})
}

// try tries a container's health once, keeps the outcome, and does what --health-on-failure says when it has become ill.
func try(ctx context.Context, c *call) error {
	k, err := c.container(c.args[0])
	if err != nil || k.Health == nil {
		return err
	}
	st, err := c.running(k)
	if err != nil || frozen(st.Pid) {
		return err
	}
	began := time.Now()
	failure := c.tryHealth(ctx, k)
	h := c.readHealth(k)
	was := h.Status
	h.note(k.Health, began, time.Since(began), failure, began.Sub(st.Created))
	if err := c.writeHealth(k, h); err != nil {
		return err
	}
	if h.Status == was {
		return nil
	}
	reason := ""
	if failure != nil {
		reason = ": " + failure.Error()
	}
	c.event(k, "health", fmt.Sprintf("%s is %s%s", k.Name, h.Status, reason), "PROA_HEALTH="+h.Status)
	if h.Status != "unhealthy" {
		return nil
	}
	switch k.Health.Action {
	case "restart", "stop":
		return c.Units.Queue(ctx, k.Health.Action, unit.Of(k))
	case "kill":
		return st.Signal(unix.SIGKILL)
	}
	return nil
}

// note adds one try. In the start period failures do not count, until it has been healthy once.
func (h *healthState) note(say *store.Health, at time.Time, took time.Duration, failure error, age time.Duration) {
	t := healthTry{At: at.UTC(), Took: took.Round(time.Millisecond).String()}
	switch {
	case failure == nil:
		h.Status, h.Failing = "healthy", 0
	case h.Status == "starting" && age < say.Start:
		t.Reason = failure.Error()
	default:
		t.Reason = failure.Error()
		h.Failing++
		if h.Failing >= say.Retries {
			h.Status = "unhealthy"
		}
	}
	h.Log = append(h.Log, t)
	h.Log = h.Log[max(0, len(h.Log)-5):]
}

func duration(s *flagset.Set, p *time.Duration, name, usage string) {
	s.Func(name, "DURATION", usage, func(v string) error {
		d, err := time.ParseDuration(v)
		if err != nil || d < time.Millisecond {
			return errors.New("want a duration such as 10s")
		}
		*p = d
		return nil
	})
}

// healthFlags say how to find out whether the container works.
func (r *runFlags) healthFlags(s *flagset.Set) {
	h := &r.health
	s.String(&r.healthCmd, "health-cmd", "COMMAND", "shell command in the container that succeeds if it works, or a JSON list of words; none: leave out the image's")
	duration(s, &h.Interval, "health-interval", "time between tries (default 30s)")
	duration(s, &h.Timeout, "health-timeout", "time one try may take (default 30s)")
	duration(s, &h.Start, "health-start-period", "time from the start in which failures do not count (default none)")
	s.Func("health-retries", "NUMBER", "failures in a row that make it unhealthy (default 3)", func(v string) error {
		var n int
		if _, err := fmt.Sscanf(v, "%d", &n); err != nil || n < 1 {
			return errors.New("want a number of at least 1")
		}
		h.Retries = n
		return nil
	})
	s.Func("health-on-failure", "ACTION", "what follows: none (default), restart, kill, stop", func(v string) error {
		if !slices.Contains([]string{"none", "restart", "kill", "stop"}, v) {
			return errors.New("want none, restart, kill or stop")
		}
		h.Action = v
		return nil
	})
	s.Bool(&r.noHealth, "no-healthcheck", "leave out the image's health check")
}

// healthOf takes the check of the flags, or else the image's; flags win one by one.
func healthOf(r *runFlags, img *image.Config) (*store.Health, error) {
	h := r.health
	own := img.Config.Healthcheck
	none := r.noHealth || r.healthCmd == "none"
	switch {
	case r.healthCmd != "" && r.noHealth:
		return nil, errors.New("--health-cmd and --no-healthcheck exclude each other")
	case none || r.healthCmd == "" && (own == nil || len(own.Test) < 2):
		return nil, nil
	case r.healthCmd != "":
		own = &image.Healthcheck{Test: []string{"CMD-SHELL", r.healthCmd}}
		if list := jsonWords(r.healthCmd); list != nil {
			own.Test = list
			if list[0] != "CMD" && list[0] != "CMD-SHELL" && list[0] != "NONE" {
				own.Test = append([]string{"CMD"}, list...)
			}
		}
	}
	switch {
	case len(own.Test) < 2:
		return nil, nil
	case own.Test[0] == "CMD":
		h.Command = own.Test[1:]
	case own.Test[0] == "CMD-SHELL":
		h.Command = []string{"/bin/sh", "-c", own.Test[1]}
	default:
		return nil, nil
	}
	h.Interval, h.Timeout, h.Start = cmp.Or(h.Interval, own.Interval), cmp.Or(h.Timeout, own.Timeout), cmp.Or(h.Start, own.StartPeriod)
	h.Retries = cmp.Or(h.Retries, own.Retries)
	h.Interval, h.Timeout, h.Retries = cmp.Or(h.Interval, 30*time.Second), cmp.Or(h.Timeout, 30*time.Second), cmp.Or(h.Retries, 3)
	return &h, nil
}
