package unittest

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// notify is the socket of a unit that speaks for itself.
func (m *Manager) notify(s *service) (env string, main <-chan int, err error) {
	path := filepath.Join(m.Logs, s.name+".sock")
	os.Remove(path)
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path})
	if err != nil {
		return "", nil, err
	}
	os.Chmod(path, 0o777)
	pids := make(chan int, 1)
	go func() {
		defer conn.Close()
		pid, ready := 0, false
		for b, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4)); ; {
			conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			n, on, _, _, err := conn.ReadMsgUnix(b, oob)
			if err != nil {
				pids <- -1
				return
			}
			closeFiles(oob[:on]) // of BARRIER=1
			for l := range strings.Lines(string(b[:n])) {
				k, v, _ := strings.Cut(strings.TrimSpace(l), "=")
				if k == "MAINPID" {
					pid, _ = strconv.Atoi(v)
				}
				ready = ready || k == "READY" && v == "1"
			}
			if pid > 0 && ready {
				select {
				case pids <- pid:
				default: // told already
				}
			}
		}
	}()
	return "NOTIFY_SOCKET=" + path, pids, nil
}

func closeFiles(oob []byte) {
	ms, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return
	}
	for _, m := range ms {
		fds, _ := unix.ParseUnixRights(&m)
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
}
