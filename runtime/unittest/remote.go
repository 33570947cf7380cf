package unittest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/unit"
)

// Serve lets other processes ask the manager, at a socket.
func (m *Manager) Serve(socket string) (close func(), err error) {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	s := rpc.NewServer()
	if err := s.RegisterName("Manager", &server{m, map[string]<-chan unit.End{}}); err != nil {
		return nil, err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go s.ServeConn(conn)
		}
	}()
	return func() { l.Close() }, nil
}

// Request is what a Client sends.
type Request struct {
	Verb     string
	Names    []string
	On       bool
	Interval time.Duration
	Text     string
	Pid      int
	Files    []int // its descriptors
}

// Reply is what it gets.
type Reply struct {
	Status map[string]unit.Status
	Number int
	Ends   []unit.End
}

type server struct {
	m    *Manager
	ends map[string]<-chan unit.End
}

// take gets descriptors of another process.
func take(pid int, fds []int) (f unit.Files, err error) {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(process)
	for _, fd := range fds {
		got, err := unix.PidfdGetfd(process, fd, 0)
		if err != nil {
			return f, err
		}
		f = append(f, os.NewFile(uintptr(got), "taken"))
	}
	return f, nil
}

// Call does what a request says.
func (s *server) Call(q Request, p *Reply) (err error) {
	ctx := context.Background()
	name := ""
	if len(q.Names) > 0 {
		name = q.Names[0]
	}
	switch q.Verb {
	case "Start":
		return s.m.Start(ctx, name)
	case "Stop":
		return s.m.Stop(ctx, name)
	case "Restart":
		return s.m.Restart(ctx, name)
	case "ResetFailed":
		return s.m.ResetFailed(ctx, name)
	case "Freeze":
		return s.m.Freeze(ctx, name, q.On)
	case "Status":
		p.Status, err = s.m.Status(ctx, q.Names)
	case "Restarts":
		p.Number, err = s.m.Restarts(ctx, name)
	case "Once":
		f, err := take(q.Pid, q.Files)
		if err != nil {
			return err
		}
		ends, err := s.m.Once(ctx, name, q.Text, f)
		for _, o := range f {
			o.Close()
		}
		if err == nil {
			s.m.mu.Lock()
			s.ends[name] = ends
			s.m.mu.Unlock()
		}
		return err
	case "End":
		s.m.mu.Lock()
		ends := s.ends[name]
		s.m.mu.Unlock()
		for e := range ends {
			p.Ends = append(p.Ends, e)
		}
	case "Limit":
		return s.m.Limit(ctx, name, q.Text)
	case "Watch":
		return s.m.Watch(ctx, name, q.Interval, q.Names[1:])
	default:
		return s.m.Queue(ctx, q.Verb, name)
	}
	return err
}

// A Client asks a manager in another process. Its methods are the manager's.
type Client struct{ Socket string }

func (c Client) call(q Request) (p Reply, err error) {
	r, err := rpc.Dial("unix", c.Socket)
	if err != nil {
		return p, errors.New("connect to systemd: " + err.Error())
	}
	defer r.Close()
	return p, r.Call("Manager.Call", q, &p)
}

func (c Client) do(verb, name string) error {
	_, err := c.call(Request{Verb: verb, Names: []string{name}})
	return err
}

// Refresh is the manager's.
func (c Client) Refresh(context.Context, string, bool) error { return nil }

// Start is the manager's.
func (c Client) Start(_ context.Context, name string) error { return c.do("Start", name) }

// Stop is the manager's.
func (c Client) Stop(_ context.Context, name string) error { return c.do("Stop", name) }

// Restart is the manager's.
func (c Client) Restart(_ context.Context, name string) error { return c.do("Restart", name) }

// ResetFailed is the manager's.
func (c Client) ResetFailed(_ context.Context, name string) error { return c.do("ResetFailed", name) }

// Queue is the manager's.
func (c Client) Queue(_ context.Context, verb, name string) error { return c.do(verb, name) }

// Freeze is the manager's.
func (c Client) Freeze(_ context.Context, name string, on bool) error {
	_, err := c.call(Request{Verb: "Freeze", Names: []string{name}, On: on})
	return err
}

// Status is the manager's; without a manager no unit is loaded.
func (c Client) Status(_ context.Context, names []string) (map[string]unit.Status, error) {
	p, err := c.call(Request{Verb: "Status", Names: names})
	return p.Status, err
}

// Restarts is the manager's.
func (c Client) Restarts(_ context.Context, name string) (int, error) {
	p, err := c.call(Request{Verb: "Restarts", Names: []string{name}})
	return p.Number, err
}

// Watch is the manager's.
func (c Client) Watch(_ context.Context, name string, interval time.Duration, command []string) error {
	_, err := c.call(Request{Verb: "Watch", Names: append([]string{name}, command...), Interval: interval})
	return err
}

// Connect does nothing.
func (c Client) Connect(context.Context) {}

// Once is the manager's.
func (c Client) Once(_ context.Context, name, text string, f unit.Files) (<-chan unit.End, error) {
	q := Request{Verb: "Once", Names: []string{name}, Text: text, Pid: os.Getpid()}
	for _, file := range f {
		q.Files = append(q.Files, int(file.Fd()))
	}
	if _, err := c.call(q); err != nil {
		if err.Error() == unit.ErrTaken.Error() {
			err = unit.ErrTaken
		}
		var code int
		if _, serr := fmt.Sscanf(err.Error(), "start "+name+": its first process has ended: exit-code 1 %d", &code); serr == nil {
			err = &unit.StartError{Unit: name, End: unit.End{Code: unit.Exited, Status: code, Result: "exit-code"}}
		}
		return nil, err
	}
	ends := make(chan unit.End, 1)
	go func() {
		defer close(ends)
		if p, err := c.call(Request{Verb: "End", Names: []string{name}}); err == nil {
			for _, e := range p.Ends {
				ends <- e
			}
		}
	}()
	return ends, nil
}

// Limit is the manager's.
func (c Client) Limit(_ context.Context, name, text string) error {
	_, err := c.call(Request{Verb: "Limit", Names: []string{name}, Text: text})
	return err
}

// ControlGroup is the manager's.
func (c Client) ControlGroup(context.Context, string) (string, error) {
	return "", fmt.Errorf("no cgroups: %w", unix.ENOENT)
}
