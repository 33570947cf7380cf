package run

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// console returns the socket that gets the master of a process's terminal, nil without one. If nobody waits for it behind
// --console-socket, a caller in the foreground does, at the other end.
func (o Options) console(p *specs.Process) (socket, other *os.File, err error) {
	switch {
	case !p.Terminal && o.Console != "":
		return nil, nil, errors.New("--console-socket: process.terminal is false")
	case !p.Terminal:
		return nil, nil, nil
	case o.Console != "":
		socket, err = connectConsole(o.Console)
		return socket, nil, err
	case !o.Follow:
		return nil, nil, errors.New("process.terminal: needs --console-socket, where its other end goes")
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("process.terminal: %w", err)
	}
	return os.NewFile(uintptr(pair[0]), "console socket"), os.NewFile(uintptr(pair[1]), "console"), nil
}

// receiveMaster takes the master that a child has sent; plain as in Options.
func receiveMaster(f *os.File, plain bool) (*os.File, error) {
	buf, oob := make([]byte, 64), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(f.Fd()), buf, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return nil, fmt.Errorf("process.terminal: receive its master: %w", err)
	}
	m, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(m) != 1 {
		return nil, fmt.Errorf("process.terminal: receive its master: %d messages, %w", len(m), err)
	}
	fds, err := unix.ParseUnixRights(&m[0])
	if err != nil {
		return nil, fmt.Errorf("process.terminal: receive its master: %w", err)
	}
	if plain {
		t, err := unix.IoctlGetTermios(fds[0], unix.TCGETS)
		if err == nil {
			t.Oflag &^= unix.ONLCR
			err = unix.IoctlSetTermios(fds[0], unix.TCSETS, t)
		}
		if err != nil {
			unix.Close(fds[0])
			return nil, fmt.Errorf("process.terminal: set line ends: %w", err)
		}
	}
	// Non-blocking, so that a reader can be woken by closing it.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, fmt.Errorf("process.terminal: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "terminal"), nil
}

// takeTerminal takes the master that the child has sent to f, nil for none, before the workload says its first word.
func (c *child) takeTerminal(f *os.File, plain bool) error {
	if f == nil {
		return nil
	}
	var err error
	c.proc.Master, err = receiveMaster(f, plain)
	return err
}

// connectConsole connects to --console-socket, where the engine waits for the terminal's master.
func connectConsole(path string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("--console-socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), "console socket")
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		f.Close()
		return nil, fmt.Errorf("--console-socket: connect to %s: %w", path, err)
	}
	return f, nil
}

// console makes a terminal in the container's devpts, sends its master to the engine and makes it standard input, output and error.
// With bind it becomes /dev/console as well. Nothing on the way may be a link of the image's.
func (p *plan) console(bind bool) {
	const label = "process.terminal: "
	strict := uint64(unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS)
	master := p.Call(label+"open /dev/pts/ptmx", unix.SYS_OPENAT2, unix.AT_FDCWD, "/dev/pts/ptmx",
		p.openHow(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, strict), unix.SizeofOpenHow)
	p.Call(label+"unlock", unix.SYS_IOCTL, master, unix.TIOCSPTLCK, p.Words(0))
	slave := p.Call(label+"open the slave", unix.SYS_IOCTL, master, unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if s := p.process.ConsoleSize; s != nil {
		size := binary.NativeEndian.AppendUint16(nil, uint16(s.Height))
		size = binary.NativeEndian.AppendUint16(size, uint16(s.Width))
		p.Call(label+"set size", unix.SYS_IOCTL, master, unix.TIOCSWINSZ, p.Bytes(append(size, 0, 0, 0, 0)))
	}
	// EINVAL: the user has no id in this user namespace.
	p.Call(label+"give it to the user", unix.SYS_FCHOWN, slave, int(p.process.User.UID), int(^uint32(0))).IgnoreOnly(unix.EINVAL)
	p.send(p.fds.console, []byte("/dev/pts/ptmx"), master)
	p.Call(label+"close", unix.SYS_CLOSE, master)
	p.Call(label+"close", unix.SYS_CLOSE, p.fds.console)
	p.Call(label+"make it the session's", unix.SYS_IOCTL, slave, unix.TIOCSCTTY, 0)
	if bind {
		p.Call(label+"make /dev/console", unix.SYS_MKNODAT, unix.AT_FDCWD, "/dev/console", unix.S_IFREG|0o600, 0).IgnoreOnly(unix.EEXIST)
		at := p.Call(label+"open /dev/console", unix.SYS_OPENAT2, unix.AT_FDCWD, "/dev/console",
			p.openHow(unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, strict), unix.SizeofOpenHow)
		tree := p.Call(label+"bind", unix.SYS_OPEN_TREE, slave, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
		p.Call(label+"bind", unix.SYS_MOVE_MOUNT, tree, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
		p.Call(label+"close", unix.SYS_CLOSE, tree)
		p.Call(label+"close", unix.SYS_CLOSE, at)
	}
	for fd := range 3 {
		p.Call(label+"take it", unix.SYS_DUP3, slave, fd, 0)
	}
	p.Call(label+"close", unix.SYS_CLOSE, slave)
}
