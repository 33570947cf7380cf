package ctl

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/proa-os/proa/runtime/store"
)

// An attachment is whoever waits for a container at a terminal or a pipe. Two sockets in the container's directory of this boot lead to
// it, and without it the container runs as well:
//
//	attach.sock   launch says "launch" and gets standard input, output and error, and the descriptors to preserve;
//	              ended says how it ended, as JSON
//	console.sock  oci-runtime sends the master of the workload's terminal (its --console-socket)
type attachment struct {
	k       *store.Container
	dir     string
	stdio   [3]*os.File
	ended   chan *store.Exit
	master  chan *os.File
	console net.Listener
	attach  net.Listener
}

const (
	attachSocket  = "attach.sock"
	consoleSocket = "console.sock"
)

// attach opens the sockets.
func (c *call) attach(k *store.Container) (*attachment, error) {
	a, err := c.attachTerminal(k)
	if err != nil {
		return nil, err
	}
	if a.attach, err = listen(filepath.Join(a.dir, attachSocket)); err != nil {
		a.close()
		return nil, err
	}
	go a.serve()
	return a, nil
}

// attachTerminal is attach without attach.sock.
func (c *call) attachTerminal(k *store.Container) (*attachment, error) {
	a := &attachment{k: k, dir: c.bundle(k.Name), ended: make(chan *store.Exit, 1), master: make(chan *os.File, 1)}
	a.stdio = [3]*os.File{c.In, c.In, c.In}
	for i, w := range []io.Writer{c.Out, c.Err} {
		f, ok := w.(*os.File)
		if !ok {
			return nil, errors.New("the foreground needs files for output")
		}
		a.stdio[i+1] = f
	}
	if !k.Stdin {
		null, err := os.Open(os.DevNull)
		if err != nil {
			return nil, err
		}
		a.stdio[0] = null
	}
	if err := os.MkdirAll(a.dir, 0o711); err != nil {
		return nil, err
	}
	if k.Terminal {
		var err error
		if a.console, err = listen(filepath.Join(a.dir, consoleSocket)); err != nil {
			a.close()
			return nil, err
		}
		go a.receive()
	}
	return a, nil
}

func listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for the container: %w", err)
	}
	return l, os.Chmod(path, 0o600)
}

func (a *attachment) close() {
	if a.attach != nil {
		a.attach.Close()
	}
	if a.console != nil {
		a.console.Close()
	}
}

// serve answers launch and ended.
func (a *attachment) serve() {
	for {
		conn, err := a.attach.Accept()
		if err != nil {
			return
		}
		line, _ := bufio.NewReader(io.LimitReader(conn, 1<<16)).ReadString('\n')
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "launch":
			fds := []int{int(a.stdio[0].Fd()), int(a.stdio[1].Fd()), int(a.stdio[2].Fd())}
			for i := range a.k.Preserve {
				fds = append(fds, 3+i)
			}
			conn.(*net.UnixConn).WriteMsgUnix([]byte("k"), unix.UnixRights(fds...), nil)
		case "ended":
			x := new(store.Exit)
			if json.Unmarshal([]byte(rest), x) == nil {
				select {
				case a.ended <- x:
				default:
				}
			}
		}
		conn.Close()
	}
}

// receive takes the terminal's master.
func (a *attachment) receive() {
	conn, err := a.console.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	if fds, err := receiveFiles(conn.(*net.UnixConn), 1); err == nil && len(fds) == 1 {
		a.master <- fds[0]
	}
}

// receiveFiles takes the descriptors of one message.
func receiveFiles(conn *net.UnixConn, most int) ([]*os.File, error) {
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	b, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*most))
	_, n, _, _, err := conn.ReadMsgUnix(b, oob)
	if err != nil {
		return nil, err
	}
	ms, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(ms) != 1 {
		return nil, fmt.Errorf("found %d control messages: %w", len(ms), err)
	}
	fds, err := unix.ParseUnixRights(&ms[0])
	if err != nil {
		return nil, err
	}
	var out []*os.File
	for _, fd := range fds {
		unix.CloseOnExec(fd)
		unix.SetNonblock(fd, true)
		out = append(out, os.NewFile(uintptr(fd), "received"))
	}
	return out, nil
}

// askAttachment returns the descriptors of whoever waits for the container, nil if nobody does.
func askAttachment(dir string, k *store.Container) ([]*os.File, error) {
	conn, err := net.Dial("unix", filepath.Join(dir, attachSocket))
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "launch\n"); err != nil {
		return nil, err
	}
	fds, err := receiveFiles(conn.(*net.UnixConn), 3+k.Preserve)
	if err == nil && len(fds) != 3+k.Preserve {
		err = fmt.Errorf("found %d descriptors", len(fds))
	}
	if err != nil {
		return nil, fmt.Errorf("ask who waits for the container: %w", err)
	}
	for _, f := range fds {
		unix.SetNonblock(int(f.Fd()), false) // they are the workload's, which shares the setting
	}
	return fds, nil
}

// findAttachment returns a connection to whoever waits for the container, nil if nobody does.
func findAttachment(dir string) net.Conn {
	conn, err := net.Dial("unix", filepath.Join(dir, attachSocket))
	if err != nil {
		return nil
	}
	return conn
}

// tellAttachment tells whoever waits how the container ended.
func tellAttachment(conn net.Conn, x *store.Exit) {
	if conn == nil {
		return
	}
	defer conn.Close()
	b, err := json.Marshal(x)
	if err != nil {
		return
	}
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	conn.Write(append(append([]byte("ended "), b...), '\n'))
	io.Copy(io.Discard, conn) // until it was read
}

// A session joins this process's terminal and the workload's.
type session struct {
	master *os.File
	done   chan struct{}
	state  *term.State
	in     *os.File
}

// join makes this terminal raw, as the workload's own does what is to be done about keys, and passes on both directions.
func (a *attachment) join(master *os.File) *session {
	s := &session{master: master, done: make(chan struct{}), in: a.stdio[0]}
	s.resize()
	if a.k.Stdin {
		if term.IsTerminal(int(s.in.Fd())) {
			s.state, _ = term.MakeRaw(int(s.in.Fd()))
		}
		go io.Copy(master, s.in)
	}
	go func() {
		io.Copy(a.stdio[1], master) // ends with EIO when the last process has closed the terminal
		close(s.done)
	}()
	return s
}

// resize gives the workload's terminal the size of this one.
func (s *session) resize() {
	for _, f := range []*os.File{s.in, os.Stdout, os.Stderr} {
		if ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil {
			unix.IoctlSetWinsize(int(s.master.Fd()), unix.TIOCSWINSZ, ws)
			return
		}
	}
}

// end waits for the last output and puts this terminal back as it was.
func (s *session) end() {
	select {
	case <-s.done:
	case <-time.After(time.Second):
	}
	if s.state != nil {
		term.Restore(int(s.in.Fd()), s.state)
	}
}
