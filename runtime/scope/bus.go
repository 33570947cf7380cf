package scope

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// bus is a connection to the system bus.
type bus struct {
	fd     int
	serial uint32
	jobs   map[string]string // results of jobs that were told before anybody asked
}

func connect() (*bus, error) {
	address := cmp.Or(os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"), "unix:path=/run/dbus/system_bus_socket")
	var errs []error
	for one := range strings.SplitSeq(address, ";") {
		b, err := dial(one)
		if err == nil {
			return b, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("connect to the system bus: %w", errors.Join(errs...))
}

func dial(address string) (*bus, error) {
	name := ""
	if rest, ok := strings.CutPrefix(address, "unix:"); ok {
		for kv := range strings.SplitSeq(rest, ",") {
			if v, ok := strings.CutPrefix(kv, "path="); ok {
				name = v
			} else if v, ok := strings.CutPrefix(kv, "abstract="); ok {
				name = "@" + v
			}
		}
	}
	if name == "" {
		return nil, fmt.Errorf("address %q: want unix:path=", address)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	b := &bus{fd: fd, jobs: make(map[string]string)}
	limit := unix.Timeval{Sec: 30}
	for _, o := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err == nil {
			err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, o, &limit)
		}
	}
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: name})
	}
	if err == nil {
		err = b.authenticate()
	}
	if err != nil {
		b.close()
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	return b, nil
}

func (b *bus) close() { unix.Close(b.fd) }

// authenticate says who this is, which the bus compares with the socket's credentials, and takes a name.
func (b *bus) authenticate() error {
	id := fmt.Sprintf("%x", fmt.Sprint(os.Geteuid()))
	if err := b.write([]byte("\x00AUTH EXTERNAL " + id + "\r\n")); err != nil {
		return err
	}
	line := ""
	for c := make([]byte, 1); !strings.HasSuffix(line, "\n") && len(line) < 1000; line += string(c) {
		if err := b.read(c); err != nil {
			return err
		}
	}
	if !strings.HasPrefix(line, "OK ") {
		return fmt.Errorf("authenticate: %q", strings.TrimSpace(line))
	}
	if err := b.write([]byte("BEGIN\r\n")); err != nil {
		return err
	}
	_, err := b.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello", "", nil)
	return err
}

func (b *bus) write(p []byte) error {
	for len(p) > 0 {
		n, err := unix.SendmsgN(b.fd, p, nil, nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

func (b *bus) read(p []byte) error {
	for len(p) > 0 {
		n, err := unix.Read(b.fd, p)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return errors.New("no answer for 30 s")
		case err != nil:
			return err
		case n == 0:
			return errors.New("the bus has closed the connection")
		}
		p = p[n:]
	}
	return nil
}

// next reads one message. It keeps the results of jobs.
func (b *bus) next() (message, error) {
	head := make([]byte, headSize)
	if err := b.read(head); err != nil {
		return message{}, err
	}
	fields, body, _, err := sizes(head)
	if err != nil {
		return message{}, err
	}
	rest := make([]byte, fields+body)
	if err := b.read(rest); err != nil {
		return message{}, err
	}
	m, err := parse(head, rest)
	if err != nil {
		return m, err
	}
	if m.kind == typeSignal && m.member == "JobRemoved" {
		m.body.uint32()
		job := m.body.string()
		m.body.string() // unit
		if result := m.body.string(); !m.body.bad {
			b.jobs[job] = result
		}
	}
	return m, nil
}

// A callError is what the other side answers instead of a result.
type callError struct{ name, text string }

func (e *callError) Error() string { return e.text + " (" + e.name + ")" }

// call calls a method and returns the body of the answer.
func (b *bus) call(dest, path, iface, member, signature string, body []byte) (*decoder, error) {
	b.serial++
	serial := b.serial
	if err := b.write(call(serial, dest, path, iface, member, signature, body)); err != nil {
		return nil, fmt.Errorf("call %s: %w", member, err)
	}
	for {
		m, err := b.next()
		if err != nil {
			return nil, fmt.Errorf("call %s: %w", member, err)
		}
		if m.reply != serial {
			continue
		}
		switch m.kind {
		case typeReply:
			return m.body, nil
		case typeError:
			return nil, fmt.Errorf("call %s: %w", member, &callError{m.errorName, m.body.string()})
		}
	}
}
