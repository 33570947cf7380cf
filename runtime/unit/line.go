package unit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	bus          = "org.freedesktop.systemd1"
	managerIface = bus + ".Manager"
	serviceIface = bus + ".Service"
	jobRemoved   = managerIface + ".JobRemoved"
	changed      = "org.freedesktop.DBus.Properties.PropertiesChanged"
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

// line is one connection to systemd, at which it tells of everything that happens to units. go-systemd makes two, asks for each of them
// more often, and what somebody waits for who runs a short command is systemd.
type line struct {
	up   chan struct{} // closed when conn or err is there
	conn *dbus.Conn
	err  error

	mu   sync.Mutex
	jobs map[dbus.ObjectPath]chan<- string
}

// Connect makes the connection of the calls to come, behind the scenes.
func (s *Systemd) Connect(ctx context.Context) { s.connect(ctx) }

// connect returns the connection, which may be about to be made. It outlives the context.
func (s *Systemd) connect(ctx context.Context) *line {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil && !s.last.broken() {
		return s.last
	}
	dial := s.Bus
	if dial == nil {
		dial = dialPrivate
	}
	l := &line{up: make(chan struct{}), jobs: map[dbus.ObjectPath]chan<- string{}}
	s.last = l
	go func() {
		defer close(l.up)
		if l.conn, l.err = dial(context.WithoutCancel(ctx)); l.err == nil {
			go l.tell(l.listen())
		}
	}()
	return l
}

func (s *Systemd) line(ctx context.Context) (*line, error) {
	l := s.connect(ctx)
	select {
	case <-l.up:
	case <-ctx.Done():
		return nil, fmt.Errorf("connect to systemd: %w", ctx.Err())
	}
	if l.err != nil {
		return nil, fmt.Errorf("connect to systemd (needs root): %w", l.err)
	}
	return l, nil
}

// Close closes the connection.
func (s *Systemd) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		return
	}
	select {
	case <-s.last.up:
		if s.last.conn != nil {
			s.last.conn.Close()
		}
	default: // the process ends
	}
}

// broken reports whether a connection could not be made or has gone, as at daemon-reexec.
func (l *line) broken() bool {
	select {
	case <-l.up:
		return l.err != nil || !l.conn.Connected()
	default:
		return false
	}
}

// listen returns what systemd tells from now on, until the connection goes. RemoveSignal ends it.
func (l *line) listen() chan *dbus.Signal {
	signals := make(chan *dbus.Signal, 64)
	l.conn.Signal(signals)
	return signals
}

// tell hands out how jobs have ended until the connection goes.
func (l *line) tell(signals chan *dbus.Signal) {
	for s := range signals {
		if s.Name != jobRemoved || len(s.Body) != 4 {
			continue
		}
		job, _ := s.Body[1].(dbus.ObjectPath)
		result, _ := s.Body[3].(string)
		l.mu.Lock()
		if done := l.jobs[job]; done != nil {
			done <- result
			delete(l.jobs, job)
		}
		l.mu.Unlock()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, done := range l.jobs {
		close(done)
	}
	l.jobs = nil
}

// ask calls a method of the manager.
func (l *line) ask(ctx context.Context, method string, args ...any) *dbus.Call {
	return l.conn.Object(bus, "/org/freedesktop/systemd1").CallWithContext(ctx, managerIface+"."+method, 0, args...)
}

// call asks the manager for a job.
func (l *line) call(ctx context.Context, method string, args ...any) (job dbus.ObjectPath, err error) {
	err = l.ask(ctx, method, args...).Store(&job)
	return job, err
}

// queue asks for a job and returns where its result comes out. Nothing does if the connection goes before.
func (l *line) queue(ctx context.Context, method string, args ...any) (<-chan string, error) {
	l.mu.Lock() // tell, which may hear of the end before the answer is here, waits
	defer l.mu.Unlock()
	job, err := l.call(ctx, method, args...)
	if err != nil {
		return nil, err
	}
	done := make(chan string, 1)
	if l.jobs == nil {
		close(done)
		return done, nil
	}
	l.jobs[job] = done
	return done, nil
}
