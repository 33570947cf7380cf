// Package bus is io.proa.Update1 on the system bus: how programs and people talk to the update agent.
//
//	object /io/proa/Update1, interface io.proa.Update1
//	Check() -> s                  look for a newer release; the result as JSON (state.Result)
//	Apply(b reboot) -> s          install and arm it, and reboot if asked; returns when that is done, which takes minutes
//	Status() -> s                 what runs, what happens and why, as JSON (state.Report)
//	History() -> s                what became of releases, as a JSON array (state.Entry)
//	signal Progress(s stage, t done, t total)      while Apply works; bytes, total is 0 when unknown
//
// Everyone may ask Status and History; Check and Apply are root's. The bus's policy says so and the service asks again itself.
// Errors are io.proa.Update1.Error.Failed with a sentence for people. The service starts when it is asked and ends when nobody
// has asked for a while, so that nothing stays resident.
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
	"github.com/godbus/dbus/v5/introspect"

	"github.com/proa-os/proa/update-engine/state"
)

// Names on the bus.
const (
	Name      = "io.proa.Update1"
	Interface = "io.proa.Update1"
	Path      = dbus.ObjectPath("/io/proa/Update1")

	errFailed = "io.proa.Update1.Error.Failed"
	errDenied = "org.freedesktop.DBus.Error.AccessDenied"
)

const introspection = `<node><interface name="io.proa.Update1">
<method name="Check"><arg name="result" type="s" direction="out"/></method>
<method name="Apply"><arg name="reboot" type="b" direction="in"/><arg name="result" type="s" direction="out"/></method>
<method name="Status"><arg name="report" type="s" direction="out"/></method>
<method name="History"><arg name="entries" type="s" direction="out"/></method>
<signal name="Progress"><arg name="stage" type="s"/><arg name="done" type="t"/><arg name="total" type="t"/></signal>
</interface>` + introspect.IntrospectDataString + `</node>`

// An Engine does the work: the update agent.
type Engine interface {
	Check(context.Context) (*state.Result, error)
	Apply(ctx context.Context, reboot bool) (*state.Result, error)
	Status() (*state.Report, error)
	History() ([]state.Entry, error)
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
}

// NewServer puts the engine on the bus, without the name yet.
func NewServer(ctx context.Context, conn *dbus.Conn, engine Engine) (*Server, error) {
	s := &Server{conn: conn, engine: engine, ctx: ctx, last: time.Now()}
	if err := conn.Export(methods{s}, Path, Interface); err != nil {
		return nil, fmt.Errorf("export %s: %w", Name, err)
	}
	if err := conn.Export(introspect.Introspectable(introspection), Path, "org.freedesktop.DBus.Introspectable"); err != nil {
		return nil, fmt.Errorf("export %s: %w", Name, err)
	}
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

// Progress emits the signal, at most five times a second within a stage.
func (s *Server) Progress(stage string, done, total int64) {
	s.mu.Lock()
	quiet := stage == s.stage && done != total && time.Since(s.sent) < 200*time.Millisecond
	if !quiet {
		s.stage, s.sent = stage, time.Now()
	}
	s.mu.Unlock()
	if !quiet {
		_ = s.conn.Emit(Path, Interface+".Progress", stage, uint64(max(done, 0)), uint64(max(total, 0))) // nobody has to listen
	}
}

// call frames a method: it counts it, and turns its result into JSON.
func (s *Server) call(work func() (any, error)) (string, *dbus.Error) {
	s.mu.Lock()
	s.calls++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.calls--
		s.last = time.Now()
		s.mu.Unlock()
	}()
	v, err := work()
	if err != nil {
		// Strings on the bus are UTF-8: with a byte of a server's in it that is none the answer would never be sent.
		return "", dbus.NewError(errFailed, []any{strings.ToValidUTF8(err.Error(), "?")})
	}
	b, err := json.Marshal(v)
	if err != nil {
		return "", dbus.NewError(errFailed, []any{err.Error()})
	}
	return string(b), nil
}

// rootOnly asks the bus who the sender is.
func (s *Server) rootOnly(sender dbus.Sender, method string) *dbus.Error {
	var uid uint32
	err := s.conn.BusObject().Call("org.freedesktop.DBus.GetConnectionUnixUser", 0, string(sender)).Store(&uid)
	if err != nil || uid != 0 {
		return dbus.NewError(errDenied, []any{fmt.Sprintf("%s is for root only", method)})
	}
	return nil
}

// methods is what the bus sees; godbus exports every exported method.
type methods struct{ s *Server }

func (m methods) Check(sender dbus.Sender) (string, *dbus.Error) {
	if err := m.s.rootOnly(sender, "Check"); err != nil {
		return "", err
	}
	return m.s.call(func() (any, error) { return m.s.engine.Check(m.s.ctx) })
}

func (m methods) Apply(sender dbus.Sender, reboot bool) (string, *dbus.Error) {
	if err := m.s.rootOnly(sender, "Apply"); err != nil {
		return "", err
	}
	return m.s.call(func() (any, error) { return m.s.engine.Apply(m.s.ctx, reboot) })
}

func (m methods) Status() (string, *dbus.Error) {
	return m.s.call(func() (any, error) { return m.s.engine.Status() })
}

func (m methods) History() (string, *dbus.Error) {
	return m.s.call(func() (any, error) { return m.s.engine.History() })
}
