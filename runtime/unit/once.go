package unit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	sd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// ErrTaken says that systemd has a unit of that name.
var ErrTaken = errors.New("systemd has a unit of that name already")

// Files are what a unit of Systemd.Once gets from its maker.
type Files []*os.File // descriptors from 3 on

// An End is how a unit's main process has ended.
type End struct {
	Code   int    // CLD_EXITED, CLD_KILLED or CLD_DUMPED (sigaction(2))
	Status int    // exit code or signal
	Result string // systemd's verdict: success, exit-code, signal, oom-kill ...
}

// A StartError says that a unit's first process has ended before it said that the unit is up.
type StartError struct {
	Unit string
	End  End
}

func (e *StartError) Error() string {
	return fmt.Sprintf("start %s: its first process has ended: %s %d %d: see journalctl -u %[1]s", e.Unit, e.End.Result, e.End.Code, e.End.Status)
}

// Kinds of an end.
const (
	Exited = 1
	Killed = 2
	Dumped = 3
)

// private is systemd's own socket, at which there is no bus and which needs root.
const private = "unix:path=/run/systemd/private"

func dialPrivate(ctx context.Context) (*dbus.Conn, error) { return dial(ctx, private) }

func dial(ctx context.Context, address string) (*dbus.Conn, error) {
	c, err := dbus.Dial(address, dbus.WithContext(ctx), dbus.WithSignalHandler(dbus.NewSequentialSignalHandler()))
	if err != nil {
		return nil, err
	}
	err = c.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Getuid()))})
	if err == nil {
		err = settle(ctx, c)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// settle waits until systemd has let a connection in. What it reads together with the last words of the authentication is not looked at
// before something more comes, and if that has descriptors the connection is closed (systemd's sd-bus/bus-socket.c). So these questions, of
// which one behind the other is answered.
func settle(ctx context.Context, c *dbus.Conn) error {
	answers := make(chan *dbus.Call, 64)
	for n := range cap(answers) {
		c.Object(bus, "/org/freedesktop/systemd1").GoWithContext(ctx, "org.freedesktop.DBus.Peer.Ping", 0, answers)
		select {
		case a := <-answers:
			return a.Err
		case <-time.After(time.Duration(n+1) * 50 * time.Millisecond): // a minute and a half in all: systemd may be busy
		}
	}
	return errors.New("no answer from systemd")
}

const (
	bus          = "org.freedesktop.systemd1"
	managerIface = bus + ".Manager"
	serviceIface = bus + ".Service"
	jobRemoved   = managerIface + ".JobRemoved"
	changed      = "org.freedesktop.DBus.Properties.PropertiesChanged"
)

// Once starts a unit that no file describes, with the text that the function Once returns, and waits until it is up. What comes out of the
// channel is how its main process ended, while what follows may still be under way; nothing comes before it is closed if nobody knows.
//
// It is one call on one connection, for this is what somebody waits for who runs a short command. ErrTaken leaves everything as it was.
func (s *Systemd) Once(ctx context.Context, name, text string, f Files) (<-chan End, error) {
	props, err := properties(text)
	if err != nil {
		return nil, err
	}
	type extra struct {
		FD   dbus.UnixFD
		Name string
	}
	var more []extra
	for _, m := range f {
		more = append(more, extra{dbus.UnixFD(m.Fd()), "more"})
	}
	if more != nil {
		props = append(props, busProperty{"ExtraFileDescriptors", dbus.MakeVariant(more)})
	}
	conn, err := s.connected(ctx)
	if err != nil {
		return nil, err
	}
	signals := make(chan *dbus.Signal, 64)
	conn.Signal(signals)
	var job dbus.ObjectPath
	call := conn.Object(bus, "/org/freedesktop/systemd1").CallWithContext(ctx, managerIface+".StartTransientUnit", 0, name, "fail", props, []struct {
		Name  string
		Props []busProperty
	}{})
	if err := call.Store(&job); err != nil {
		conn.Close()
		var told dbus.Error
		if errors.As(err, &told) && told.Name == bus+".UnitExists" {
			return nil, fmt.Errorf("%w: %w", ErrTaken, err)
		}
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	o := &once{systemd: s, name: name, path: dbus.ObjectPath("/org/freedesktop/systemd1/unit/" + sd.PathBusEscape(name)), job: job,
		started: make(chan error, 1), ended: make(chan End, 1)}
	go o.listen(conn, signals)
	select {
	case err := <-o.started:
		return o.ended, err
	case <-ctx.Done():
		conn.Close()
		return nil, fmt.Errorf("start %s: %w", name, ctx.Err())
	}
}

// dialed is the outcome of Connect.
type dialed struct {
	conn *dbus.Conn
	err  error
}

// Connect makes the connection of the next Once, behind the scenes.
func (s *Systemd) Connect(ctx context.Context) {
	dial := s.Bus
	if dial == nil {
		dial = dialPrivate
	}
	done := make(chan dialed, 1)
	s.once = done
	go func() {
		c, err := dial(ctx)
		done <- dialed{c, err}
	}()
}

func (s *Systemd) connected(ctx context.Context) (*dbus.Conn, error) {
	if s.once == nil {
		s.Connect(ctx)
	}
	d := <-s.once
	s.once = nil
	if d.err != nil {
		return nil, fmt.Errorf("connect to systemd (needs root): %w", d.err)
	}
	return d.conn, nil
}

// once listens to what systemd says of one unit.
type once struct {
	systemd   *Systemd
	name      string
	path, job dbus.ObjectPath
	started   chan error
	ended     chan End
	end       End
	pid       uint32 // of the main process that was told of last
	handed    bool   // that is another one than the first: the workload
}

// listen ends with the main process of the unit, or with systemd's connection: at daemon-reexec a new one is asked.
func (o *once) listen(conn *dbus.Conn, signals <-chan *dbus.Signal) {
	defer close(o.ended)
	defer conn.Close()
	up := false
	for s := range signals {
		if result, ok := o.removed(s); ok {
			if result != "done" {
				o.started <- fmt.Errorf("start %s: the job ends with %q: see journalctl -u %s", o.name, result, o.name)
				return
			}
			up = true
			o.started <- nil
		}
		o.note(s)
		switch {
		case o.end.Code == 0 && (up || o.end.Result == "" || o.end.Result == "success"):
		case up || o.handed:
			if !up { // what goes on behind the start, ExecStartPost=, holds the job up
				o.started <- nil
			}
			o.ended <- o.end
			return
		default: // the job goes on until all that follows has ended
			o.started <- &StartError{o.name, o.end}
			return
		}
	}
	if !up {
		o.started <- fmt.Errorf("start %s: systemd has closed the connection", o.name)
		return
	}
	o.ask()
}

// removed reports whether a signal tells the end of the job.
func (o *once) removed(s *dbus.Signal) (result string, ok bool) {
	if s.Name != jobRemoved || len(s.Body) != 4 || s.Body[1] != o.job {
		return "", false
	}
	result, ok = s.Body[3].(string)
	return result, ok
}

// note takes what a signal says of the main process. A later main process, which is the workload behind its maker, begins anew.
func (o *once) note(s *dbus.Signal) {
	if s.Name != changed || s.Path != o.path || len(s.Body) < 2 || s.Body[0] != serviceIface {
		return
	}
	now, ok := s.Body[1].(map[string]dbus.Variant)
	if !ok {
		return
	}
	get := func(name string) (n int) {
		v, _ := now[name].Value().(int32)
		return int(v)
	}
	if pid, _ := now["ExecMainPID"].Value().(uint32); pid != 0 && pid != o.pid {
		o.handed, o.pid = o.pid != 0, pid
	}
	if _, told := now["ExecMainCode"]; told {
		o.end.Code, o.end.Status = get("ExecMainCode"), get("ExecMainStatus")
	}
	if r, ok := now["Result"].Value().(string); ok {
		o.end.Result = r
	}
}

// ask asks again and again, after the connection has gone.
func (o *once) ask() {
	for failures := 0; failures < 30; time.Sleep(time.Second) {
		s := &Systemd{Dial: o.systemd.Dial}
		c, err := s.open(context.Background())
		if err != nil {
			failures++
			continue
		}
		p, err := c.GetUnitTypePropertiesContext(context.Background(), o.name, "Service")
		s.Close()
		if err != nil {
			failures++
			continue
		}
		code, _ := p["ExecMainCode"].(int32)
		status, _ := p["ExecMainStatus"].(int32)
		pid, _ := p["ExecMainPID"].(uint32)
		result, _ := p["Result"].(string)
		switch {
		case pid == 0: // systemd knows nothing of it any more
			return
		case code != 0:
			o.ended <- End{int(code), int(status), result}
			return
		}
		failures = 0
	}
}

// ControlGroup is the directory of a unit's cgroup.
func (s *Systemd) ControlGroup(ctx context.Context, unit string) (string, error) {
	c, err := s.open(ctx)
	if err != nil {
		return "", err
	}
	p, err := c.GetUnitTypePropertyContext(ctx, unit, "Service", "ControlGroup")
	if err != nil {
		return "", fmt.Errorf("ask about %s: %w", unit, err)
	}
	group, _ := p.Value.Value().(string)
	if group == "" {
		return "", fmt.Errorf("ask about %s: it has no cgroup: %w", unit, unix.ENOENT)
	}
	return "/sys/fs/cgroup" + group, nil
}
