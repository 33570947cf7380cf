// Package bus is io.proa.Update1 on the system bus: how programs and people talk to the update agent.
//
// Object /io/proa/Update1, interface io.proa.Update1. Results are JSON; versions are strings such as "1.0.1".
//
//	Check() -> s                            look for a newer release (state.Result)
//	Apply(b reboot) -> s                    install and arm it, and reboot if asked; returns when that is done, which takes minutes (state.Result)
//	Auto() -> s                             what the timer asks for: Apply if it is time to (state.Result)
//	Rollback(s version, s reason, b reboot) -> s      go back to the other slot; "" is whichever release it holds (state.Result)
//	Resume(s reason) -> s                   follow the channel again after a rollback
//	Hold(t until, s reason) -> s            take nothing, until then (seconds since 1970; 0: until Unhold)
//	Unhold(s reason) -> s
//	Pin(s version, s reason) -> s           take nothing but this; "" is the running one
//	Unpin(s reason) -> s
//	ClearQuarantine(s version, s reason) -> s         let a release that failed be taken again
//	Status() -> s                           what runs, what happens and why (state.Report)
//	History() -> s                          what became of releases, oldest first (array of state.Entry)
//	Metrics() -> s                          the same in numbers, Prometheus' text format
//	signal Progress(s stage, t done, t total)         while a job works; bytes, total is 0 when unknown
//
// The properties (org.freedesktop.DBus.Properties, PropertiesChanged when they do) are in properties.go.
//
// Everyone may read: Status, History, Metrics, properties. Everything else is root's. The bus's policy says so and the service asks
// again itself. Errors are io.proa.Update1.Error.Failed, or Error.Busy while another job works, with a sentence for people. The
// service starts when it is asked and ends when nobody has asked for a while, so that nothing stays resident.
package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/proa-os/proa/update-engine/state"
)

// Names on the bus.
const (
	Name      = "io.proa.Update1"
	Interface = "io.proa.Update1"
	Path      = dbus.ObjectPath("/io/proa/Update1")

	propertiesInterface = "org.freedesktop.DBus.Properties"

	errFailed = "io.proa.Update1.Error.Failed"
	errBusy   = "io.proa.Update1.Error.Busy"
	errDenied = "org.freedesktop.DBus.Error.AccessDenied"
)

// An Updater works on releases.
type Updater interface {
	Check(context.Context) (*state.Result, error)
	Apply(ctx context.Context, reboot bool) (*state.Result, error)
	Auto(context.Context) (*state.Result, error)
	Rollback(ctx context.Context, version string, given state.Given, reboot bool) (*state.Result, error)
}

// A Steerer takes orders.
type Steerer interface {
	Resume(state.Given) (*state.Result, error)
	Hold(until *time.Time, given state.Given) (*state.Result, error)
	Unhold(state.Given) (*state.Result, error)
	Pin(version string, given state.Given) (*state.Result, error)
	Unpin(state.Given) (*state.Result, error)
	ClearQuarantine(version string, given state.Given) (*state.Result, error)
}

// A Reporter answers questions.
type Reporter interface {
	Status() (*state.Report, error)
	History() ([]state.Entry, error)
	Metrics() (string, error)
}

// An Engine does the work: the update agent.
type Engine interface {
	Updater
	Steerer
	Reporter
}

// A Server is the engine on a bus.
type Server struct {
	conn   *dbus.Conn
	engine Engine
	ctx    context.Context

	mu    sync.Mutex
	calls int       // under way
	last  time.Time // end of the last one
	stage string
	sent  time.Time // last Progress

	known sync.Mutex              // held while changes are told
	told  map[string]dbus.Variant // the properties as they were last told
}

// NewServer puts the engine on the bus, without the name yet.
func NewServer(ctx context.Context, conn *dbus.Conn, engine Engine) (*Server, error) {
	s := &Server{conn: conn, engine: engine, ctx: ctx, last: time.Now()}
	for _, e := range []struct {
		v    any
		name string
	}{{methods{s}, Interface}, {getters{s}, propertiesInterface}, {introspectable{}, "org.freedesktop.DBus.Introspectable"}} {
		if err := conn.Export(e.v, Path, e.name); err != nil {
			return nil, fmt.Errorf("export %s: %w", e.name, err)
		}
	}
	s.Changed()
	return s, nil
}

// Serve takes the name and answers until ctx ends or nobody has asked for the time idle.
func (s *Server) Serve(idle time.Duration) error {
	reply, err := s.conn.RequestName(Name, dbus.NameFlagDoNotQueue)
	if err != nil {
		return fmt.Errorf("take the name %s: %w", Name, err)
	}
	if reply != dbus.RequestNameReplyPrimaryOwner {
		return fmt.Errorf("take the name %s: another update agent has it", Name)
	}
	tick := time.NewTicker(idle / 4)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return nil
		case <-s.conn.Context().Done():
			return errors.New("the system bus is gone")
		case <-tick.C:
		}
		if !s.idleFor(idle) {
			continue
		}
		// From here on the bus starts a new agent for new calls; those that reached this one are still answered.
		if _, err := s.conn.ReleaseName(Name); err != nil {
			return fmt.Errorf("give back the name %s: %w", Name, err)
		}
		for !s.idleFor(idle / 10) {
			time.Sleep(idle / 20)
		}
		return nil
	}
}

func (s *Server) idleFor(d time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls == 0 && time.Since(s.last) >= d
}

// Progress emits the signal and the property, at most five times a second within a stage.
func (s *Server) Progress(stage string, done, total int64) {
	s.mu.Lock()
	quiet := stage == s.stage && done != total && time.Since(s.sent) < 200*time.Millisecond
	if !quiet {
		s.stage, s.sent = stage, time.Now()
	}
	s.mu.Unlock()
	if quiet {
		return
	}
	p := progressValue(&state.Progress{Stage: stage, Done: done, Total: total})
	_ = s.conn.Emit(Path, Interface+".Progress", p.Stage, p.Done, p.Total) // nobody has to listen
	s.tell(map[string]dbus.Variant{"Progress": dbus.MakeVariant(p)})
}

// begin and end frame every call.
func (s *Server) begin() {
	s.mu.Lock()
	s.calls++
	s.mu.Unlock()
}

func (s *Server) end() {
	s.mu.Lock()
	s.calls--
	s.last = time.Now()
	s.mu.Unlock()
}

// call frames a method, and turns its result into JSON.
func (s *Server) call(work func() (any, error)) (string, *dbus.Error) {
	s.begin()
	defer s.end()
	v, err := work()
	if err != nil {
		return "", failure(err)
	}
	if text, ok := v.(string); ok {
		return text, nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return "", failure(err)
	}
	return string(b), nil
}

func failure(err error) *dbus.Error {
	name := errFailed
	if errors.Is(err, state.Busy{}) {
		name = errBusy
	}
	// Strings on the bus are UTF-8: with a byte of a server's in it that is none the answer would never be sent.
	return dbus.NewError(name, []any{strings.ToValidUTF8(err.Error(), "?")})
}
