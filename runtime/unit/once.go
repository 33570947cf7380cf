package unit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/godbus/dbus/v5"
)

// ErrTaken says that systemd has a unit of that name.
var ErrTaken = errors.New("systemd has a unit of that name already")

// Files are what a unit of Systemd.Once gets from its maker.
type Files []*os.File

// FileName is what systemd calls one of Files, in LISTEN_FDNAMES (sd_listen_fds_with_names(3)). Its number it knows from there only: sockets
// of socket units, and files of a drop-in's OpenFile=, are passed on as well.
func FileName(n int) string { return "containerctl-" + strconv.Itoa(n) }

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
	for n, m := range f {
		more = append(more, extra{dbus.UnixFD(m.Fd()), FileName(n)})
	}
	if more != nil {
		props = append(props, property("ExtraFileDescriptors", more))
	}
	l, err := s.line(ctx)
	if err != nil {
		return nil, err
	}
	signals := l.listen()
	job, err := l.call(ctx, "StartTransientUnit", name, "fail", props, []other{})
	if err != nil {
		l.conn.RemoveSignal(signals)
		var told dbus.Error
		if errors.As(err, &told) && told.Name == bus+".UnitExists" {
			return nil, fmt.Errorf("%w: %w", ErrTaken, err)
		}
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	o := &once{systemd: s, name: name, path: pathOf(name), job: job, started: make(chan error, 1), ended: make(chan End, 1)}
	go o.listen(l, signals)
	select {
	case err := <-o.started:
		return o.ended, err
	case <-ctx.Done():
		l.conn.Close()
		return nil, fmt.Errorf("start %s: %w", name, ctx.Err())
	}
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
	up        bool   // the job has ended well
}

// listen ends with the main process of the unit. At daemon-reexec systemd closes its connections and goes on: another one is made.
func (o *once) listen(l *line, signals chan *dbus.Signal) {
	defer close(o.ended)
	for {
		over := o.hear(signals)
		l.conn.RemoveSignal(signals)
		if over {
			return
		}
		var err error
		if l, signals, err = o.again(); err != nil {
			if !o.up {
				o.started <- fmt.Errorf("start %s: systemd has closed the connection: %w", o.name, err)
			}
			return
		}
		if o.judge() {
			l.conn.RemoveSignal(signals)
			return
		}
	}
}

// hear reports whether all is over that there is to hear; otherwise the connection is.
func (o *once) hear(signals <-chan *dbus.Signal) bool {
	for s := range signals {
		if result, ok := o.removed(s); ok {
			if result != "done" {
				o.started <- fmt.Errorf("start %s: the job ends with %q: see journalctl -u %s", o.name, result, o.name)
				return true
			}
			o.isUp()
		}
		o.note(s)
		if o.judge() {
			return true
		}
	}
	return false
}

func (o *once) isUp() {
	if !o.up {
		o.up = true
		o.started <- nil
	}
}

// judge tells of the end, if it has come.
func (o *once) judge() bool {
	switch {
	case o.end.Code == 0 && (o.up || o.end.Result == "" || o.end.Result == "success"):
		return false
	case o.up || o.handed:
		o.isUp() // what goes on behind the start, ExecStartPost=, holds the job up
		o.ended <- o.end
	default: // the job goes on until all that follows has ended
		o.started <- &StartError{o.name, o.end}
	}
	return true
}

// removed reports whether a signal tells the end of the job.
func (o *once) removed(s *dbus.Signal) (result string, ok bool) {
	if s.Name != jobRemoved || len(s.Body) != 4 || s.Body[1] != o.job {
		return "", false
	}
	result, ok = s.Body[3].(string)
	return result, ok
}

// note takes what a signal says of the main process.
func (o *once) note(s *dbus.Signal) {
	if s.Name != changed || s.Path != o.path || len(s.Body) < 2 || s.Body[0] != serviceIface {
		return
	}
	if now, ok := s.Body[1].(map[string]dbus.Variant); ok {
		o.take(now)
	}
}

// take takes properties of the service. A later main process, which is the workload behind its maker, begins anew.
func (o *once) take(now map[string]dbus.Variant) {
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

// errForgotten says that systemd knows nothing of a unit any more.
var errForgotten = errors.New("systemd has forgotten the unit")

// again makes another connection, and asks what may have happened in between.
func (o *once) again() (l *line, signals chan *dbus.Signal, err error) {
	for range 300 { // half a minute
		if l, signals, err = o.reconnect(); err == nil || errors.Is(err, errForgotten) {
			return l, signals, err
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil, nil, err
}

func (o *once) reconnect() (*line, chan *dbus.Signal, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	l, err := o.systemd.line(ctx)
	if err != nil {
		return nil, nil, err
	}
	signals := l.listen()
	if err := o.ask(ctx, l); err != nil {
		l.conn.RemoveSignal(signals)
		return nil, nil, err
	}
	return l, signals, nil
}

// ask asks how the unit is.
func (o *once) ask(ctx context.Context, l *line) error {
	all := func(of string) (props map[string]dbus.Variant, err error) {
		err = l.conn.Object(bus, o.path).CallWithContext(ctx, "org.freedesktop.DBus.Properties.GetAll", 0, of).Store(&props)
		return props, err
	}
	about, err := all(bus + ".Unit")
	if err != nil {
		return err
	}
	service, err := all(serviceIface)
	if err != nil {
		return err
	}
	job, _ := about["Job"].Value().([]any) // number, path
	queued := len(job) == 2 && job[0] != uint32(0)
	if pid, _ := service["ExecMainPID"].Value().(uint32); pid == 0 && !queued {
		return errForgotten
	}
	o.take(service)
	if about["ActiveState"].Value() == "active" {
		o.isUp()
	}
	return nil
}
