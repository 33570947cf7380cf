package nameserver

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/proa-os/proa/runtime/network"
)

// Bounds.
const (
	mostQuestions = 128 // in work for all
	mostOfOne     = 24  // in work for one container
	mostConns     = 64  // TCP connections
	askTime       = 2 * time.Second
	connTime      = 10 * time.Second
)

// Server answers on the sockets it is given.
type Server struct {
	Names   string                                                  // the file
	Machine func() []netip.Addr                                     // whom the machine asks
	Idle    time.Duration                                           // Serve returns when nobody has asked for that long
	Port    uint16                                                  // of the servers that are asked; 0: 53
	Dial    func(context.Context, string, string) (net.Conn, error) // nil: the machine's
	mu      sync.Mutex
	busy    map[netip.Addr]int // questions in work
	total   int
	last    time.Time
	conns   int
	names   *network.Names
	stamp   fs.FileInfo
}

// Serve answers on all the sockets until nobody has asked on any for a while or ctx ends. It closes them.
func (s *Server) Serve(ctx context.Context, udp []net.PacketConn, tcp []net.Listener) error {
	s.busy, s.last = map[netip.Addr]int{}, time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		for _, p := range udp {
			p.Close()
		}
		for _, l := range tcp {
			l.Close()
		}
	})
	defer stop()
	var wg sync.WaitGroup
	for _, l := range tcp {
		wg.Go(func() { s.serveTCP(ctx, l, &wg) })
	}
	errs := make([]error, len(udp))
	for i, p := range udp {
		wg.Go(func() {
			defer cancel() // idle, or broken: of all of them
			errs[i] = s.serveUDP(ctx, p, &wg)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (s *Server) serveUDP(ctx context.Context, udp net.PacketConn, wg *sync.WaitGroup) error {
	buf := make([]byte, 65535)
	for {
		if err := udp.SetReadDeadline(time.Now().Add(s.Idle)); err != nil && ctx.Err() == nil {
			return err
		}
		n, addr, err := udp.ReadFrom(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			if s.idle() {
				return nil
			}
			continue
		case err != nil:
			return fmt.Errorf("receive questions: %w", err)
		}
		from := addr.(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone("")
		release := s.admit(from)
		if release == nil {
			continue
		}
		msg := append([]byte(nil), buf[:n]...)
		wg.Go(func() {
			defer release()
			if b := s.handle(ctx, "udp", from, msg); b != nil {
				udp.WriteTo(b, addr) // who does not hear the answer asks again
			}
		})
	}
}

func (s *Server) serveTCP(ctx context.Context, tcp net.Listener, wg *sync.WaitGroup) {
	for {
		c, err := tcp.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(10 * time.Millisecond) // out of descriptors, say: those in use come back
			continue
		}
		s.mu.Lock()
		full := s.conns >= mostConns
		if !full {
			s.conns++
		}
		s.mu.Unlock()
		if full {
			c.Close()
			continue
		}
		wg.Go(func() {
			stop := context.AfterFunc(ctx, func() { c.Close() })
			s.serveConn(ctx, c)
			stop()
			c.Close()
			s.mu.Lock()
			s.conns--
			s.mu.Unlock()
		})
	}
}

// serveConn answers one question after the other.
func (s *Server) serveConn(ctx context.Context, c net.Conn) {
	from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().WithZone("")
	for {
		c.SetDeadline(time.Now().Add(connTime))
		msg, err := readMessage(c)
		if err != nil {
			return
		}
		release := s.admit(from)
		if release == nil {
			return
		}
		b := s.handle(ctx, "tcp", from, msg)
		release()
		if b == nil || writeMessage(c, b) != nil {
			return
		}
	}
}

// readMessage reads a message with its length before it (RFC 1035, 4.2.2).
func readMessage(r io.Reader) ([]byte, error) {
	var n [2]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(n[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

func writeMessage(w io.Writer, b []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}

// admit takes a question in, or returns nil if there are too many.
func (s *Server) admit(from netip.Addr) func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = time.Now()
	if s.total >= mostQuestions || s.busy[from] >= mostOfOne {
		return nil
	}
	s.total++
	s.busy[from]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.total--
		if s.busy[from]--; s.busy[from] == 0 {
			delete(s.busy, from)
		}
	}
}

func (s *Server) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total == 0 && time.Since(s.last) >= s.Idle
}

// current is what the file says now. One that cannot be read leaves what was known.
func (s *Server) current() *network.Names {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := os.Stat(s.Names)
	if errors.Is(err, fs.ErrNotExist) {
		s.names, s.stamp = new(network.Names), nil
	}
	if err != nil || s.stamp != nil && os.SameFile(st, s.stamp) && st.ModTime().Equal(s.stamp.ModTime()) {
		return s.names
	}
	b, err := os.ReadFile(s.Names)
	n := new(network.Names)
	if err == nil && json.Unmarshal(b, n) == nil {
		s.names, s.stamp = n, st
	}
	if s.names == nil {
		s.names = new(network.Names)
	}
	return s.names
}

// handle returns the answer to one message, nil if there is none.
func (s *Server) handle(ctx context.Context, proto string, from netip.Addr, msg []byte) []byte {
	var machine []netip.Addr
	if s.Machine != nil {
		machine = s.Machine()
	}
	d := decide(s.current(), machine, from, msg, proto == "udp")
	for _, server := range d.servers {
		if b, err := s.ask(ctx, proto, server, msg, d); err == nil {
			return b
		}
	}
	return d.reply
}

// ask passes a question on to one server.
func (s *Server) ask(ctx context.Context, proto string, server netip.Addr, msg []byte, d decision) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	dial, port := s.Dial, s.Port
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	if port == 0 {
		port = 53
	}
	c, err := dial(ctx, proto, netip.AddrPortFrom(server, port).String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	if err := c.SetDeadline(deadline); err != nil {
		return nil, err
	}
	var random [2]byte
	crand.Read(random[:])
	id, theirs := binary.BigEndian.Uint16(random[:]), binary.BigEndian.Uint16(msg)
	query := withID(msg, id)
	if proto == "tcp" {
		if err := writeMessage(c, query); err != nil {
			return nil, err
		}
		b, err := readMessage(c)
		if err == nil && !matches(b, id, d.query) {
			err = errors.New("the answer is to another question")
		}
		if err != nil {
			return nil, err
		}
		return withID(b, theirs), nil
	}
	if _, err := c.Write(query); err != nil {
		return nil, err
	}
	buf := make([]byte, 65535)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return nil, err
		}
		if matches(buf[:n], id, d.query) {
			return withID(buf[:n], theirs), nil
		}
	}
}
