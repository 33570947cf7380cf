package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/store"
)

// kinds are the events of containers, the values of PROA_EVENT in the journal.
var kinds = [...]string{"create", "start", "die", "oom", "health", "remove", "rename", "update"}

// event tells the journal that something has happened to a container. Without a journal nobody hears it.
func (e *Env) event(k *store.Container, kind, message string, fields ...string) {
	conn, err := net.Dial("unixgram", e.JournalSocket)
	if err != nil {
		return
	}
	defer conn.Close()
	priority := "6"
	if kind == "oom" || kind == "health" {
		priority = "4"
	}
	all := append([]string{"MESSAGE=" + printable(message), "PRIORITY=" + priority, "SYSLOG_IDENTIFIER=containerctl", "PROA_EVENT=" + kind,
		"PROA_CONTAINER=" + k.Name, "PROA_IMAGE=" + k.Image}, fields...)
	for i := range all {
		all[i] = strings.ReplaceAll(all[i], "\n", " ")
	}
	conn.Write([]byte(strings.Join(all, "\n") + "\n"))
}

// occurrence is an event as events prints it.
type occurrence struct {
	Time      time.Time `json:"time"`
	Container string    `json:"container"`
	Event     string    `json:"event"`
	Image     string    `json:"image"`
	ExitCode  *int      `json:"exit_code,omitempty"`
	Health    string    `json:"health,omitempty"`
	Message   string    `json:"message"`
}

type eventsFlags struct {
	since, until string
	filters      []string
	follow       bool
}

func eventsVerb() verb {
	return verb{name: "events", what: "show what happens to containers, from the journal", json: true,
		more: "Without --until it goes on with what happens from now on, as docker's does. Events are " + strings.Join(kinds[:], ", ") + ".",
		setup: func(s *flagset.Set) action {
			f := new(eventsFlags)
			s.String(&f.since, "since", "TIME", "begin with what happened then; 10m: ten minutes ago")
			s.String(&f.until, "until", "TIME", "end then")
			s.List(&f.filters, "f,filter", "KEY=VALUE", "container=NAME, event=KIND, image=IMAGE, type=container")
			return f.run
		}}
}

func (f *eventsFlags) run(ctx context.Context, c *call) error {
	want, err := parseFilters(f.filters, "container", "event", "image", "type")
	if err != nil {
		return err
	}
	args := []string{"--output=json", "--all"}
	for _, k := range kinds {
		args = append(args, "PROA_EVENT="+k)
	}
	if f.until == "" {
		args = append(args, "--follow")
	}
	args, err = addTimes(args, f.since, f.until, time.Now())
	if err != nil {
		return err
	}
	if f.since == "" {
		args = append(args, "--lines=0")
	} else if f.until == "" {
		args = append(args, "--no-tail")
	}
	return c.journal(ctx, args, func(j entry) error {
		o := occurrence{Time: j.time(), Container: j.text("PROA_CONTAINER"), Event: j.text("PROA_EVENT"), Image: j.text("PROA_IMAGE"),
			Health: j.text("PROA_HEALTH"), Message: j.text("MESSAGE")}
		if n, err := strconv.Atoi(j.text("PROA_EXIT_CODE")); err == nil {
			o.ExitCode = &n
		}
		if !want.match("container", o.Container) || !want.match("event", o.Event) || !want.match("image", o.Image) || !want.match("type", "container") {
			return nil
		}
		if c.asJSON {
			return json.NewEncoder(c.Out).Encode(o)
		}
		_, err := fmt.Fprintf(c.Out, "%s %-7s %s\n", o.Time.Local().Format(time.RFC3339), o.Event, printable(o.Message))
		return err
	})
}

// filters are docker's: values of the same key are alternatives.
type filters map[string][]string

func parseFilters(list []string, keys ...string) (filters, error) {
	f := filters{}
	for _, v := range list {
		key, value, ok := strings.Cut(v, "=")
		if !ok || !slices.Contains(keys, key) {
			return nil, fmt.Errorf("filter %q: want KEY=VALUE with one of the keys %s", v, strings.Join(keys, ", "))
		}
		f[key] = append(f[key], value)
	}
	return f, nil
}

func (f filters) match(key, value string) bool {
	return len(f[key]) == 0 || slices.Contains(f[key], value)
}

// addTimes adds --since and --until to journalctl's arguments.
func addTimes(args []string, since, until string, now time.Time) ([]string, error) {
	for _, t := range [][2]string{{"since", since}, {"until", until}} {
		if t[1] == "" {
			continue
		}
		at, err := when(t[1], now)
		if err != nil {
			return nil, fmt.Errorf("--%s %q: %w", t[0], t[1], err)
		}
		args = append(args, "--"+t[0]+"="+at)
	}
	return args, nil
}

// when reads a time as docker does, and as journalctl does where docker's forms do not fit: it returns what journalctl reads.
func when(v string, now time.Time) (string, error) {
	unix := func(t time.Time) string { return fmt.Sprintf("@%d.%06d", t.Unix(), t.Nanosecond()/1000) }
	if d, err := time.ParseDuration(v); err == nil {
		return unix(now.Add(-d)), nil
	}
	if sec, frac, _ := strings.Cut(v, "."); sec != "" && strings.Trim(sec, "0123456789") == "" && strings.Trim(frac, "0123456789") == "" {
		return "@" + v, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, v, time.Local); err == nil {
			return unix(t), nil
		}
	}
	if slices.Contains([]string{"today", "yesterday", "now"}, v) {
		return v, nil
	}
	return "", errors.New("want a time such as 2026-01-31T12:00:00, a number of seconds since 1970, or how long ago, such as 10m")
}
