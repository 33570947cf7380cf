package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// fakeQEMU answers on one end of a pipe: for every command the strings that answer returns are sent, with %d for the id.
func fakeQEMU(t *testing.T, greeting string, answer func(command string) []string) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { theirs.Close() })
	go func() {
		defer theirs.Close()
		fmt.Fprintln(theirs, greeting)
		in := bufio.NewScanner(theirs)
		for in.Scan() {
			var c struct {
				Execute string
				ID      int
			}
			if err := json.Unmarshal(in.Bytes(), &c); err != nil {
				fmt.Fprintln(theirs, `{"error":{"class":"GenericError","desc":"`+err.Error()+`"}}`)
				return
			}
			if c.Execute == "hang-up" {
				return
			}
			if c.Execute == "qmp_capabilities" {
				fmt.Fprintf(theirs, `{"return":{},"id":%d}`, c.ID)
				continue
			}
			for _, a := range answer(c.Execute) {
				fmt.Fprintln(theirs, strings.ReplaceAll(a, "%d", fmt.Sprint(c.ID)))
			}
		}
	}()
	return ours
}

const greeting = `{"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 10}}, "capabilities": ["oob"]}}`

func TestQMP(t *testing.T) {
	events := make(chan Event, 10)
	conn := fakeQEMU(t, greeting, func(command string) []string {
		switch command {
		case "query-status":
			return []string{`{"event":"RESUME","timestamp":{}}`, `{"return":{"status":"running"},"id":%d}`}
		case "quit":
			return []string{`{"return":{},"id":%d}`, `{"event":"SHUTDOWN","data":{"guest":false,"reason":"host-qmp-quit"}}`}
		}
		return []string{`{"id":%d,"error":{"class":"CommandNotFound","desc":"The command ` + command + ` has not been found"}}`}
	})
	q, err := NewQMP(t.Context(), conn, func(e Event) { events <- e })
	if err != nil {
		t.Fatal(err)
	}
	var status struct{ Status string }
	if err := q.Execute(t.Context(), "query-status", nil, &status); err != nil || status.Status != "running" {
		t.Errorf("got %+v, %v, want running", status, err)
	}
	if e := <-events; e.Name != "RESUME" {
		t.Errorf("got event %q, want RESUME", e.Name)
	}
	if err := q.Execute(t.Context(), "warp", nil, nil); err == nil || !strings.Contains(err.Error(), "execute warp: QEMU says CommandNotFound") {
		t.Errorf("got %v, want CommandNotFound", err)
	}
	if err := q.Execute(t.Context(), "quit", nil, nil); err != nil {
		t.Error(err)
	}
	if e := <-events; e.Name != "SHUTDOWN" || !strings.Contains(string(e.Data), "host-qmp-quit") {
		t.Errorf("got event %q %s, want SHUTDOWN", e.Name, e.Data)
	}
	if err := q.Execute(t.Context(), "hang-up", nil, nil); !errors.Is(err, errQMPClosed) {
		t.Errorf("got %v, want %v", err, errQMPClosed)
	}
	if err := q.Execute(t.Context(), "query-status", nil, nil); err == nil {
		t.Error("got no error from a closed monitor")
	}
}

func TestQMPDeadline(t *testing.T) {
	conn := fakeQEMU(t, greeting, func(string) []string { return nil })
	q, err := NewQMP(t.Context(), conn, func(Event) {})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := q.Execute(ctx, "query-status", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want a deadline error", err)
	}
}

func TestQMPGreeting(t *testing.T) {
	for _, g := range []string{`{"return":{}}`, `hello`, `[]`} {
		if _, err := NewQMP(t.Context(), fakeQEMU(t, g, nil), func(Event) {}); err == nil {
			t.Errorf("got no error for the greeting %s", g)
		}
	}
	a, b := net.Pipe()
	b.Close()
	if _, err := NewQMP(t.Context(), a, func(Event) {}); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want EOF", err)
	}
}
