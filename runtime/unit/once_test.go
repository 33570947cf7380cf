package unit

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestDial: a systemd that leaves the first question lying, as it does when that comes together with the end of the authentication, is asked
// again.
func TestDial(t *testing.T) {
	path := filepath.Join(t.TempDir(), "private")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	asked := make(chan int, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		asked <- lazy(conn)
		io.Copy(io.Discard, conn)
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := dial(ctx, "unix:path="+path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n := <-asked; n != 2 {
		t.Errorf("answered after %d questions, want 2", n)
	}
}

// lazy lets a client in and answers its first question when the second one is there (D-Bus specification, authentication and message format).
func lazy(conn net.Conn) (questions int) {
	r := bufio.NewReader(conn)
	for {
		line, err := r.ReadString('\n')
		word, _, _ := strings.Cut(strings.Trim(line, "\x00\r\n"), " ")
		switch {
		case err != nil:
			return questions
		case word == "BEGIN":
			first := question(r)
			question(r)
			answer := []byte{'l', 2, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 5, 1, 'u', 0}
			conn.Write(binary.LittleEndian.AppendUint32(answer, first))
			return 2
		case word == "NEGOTIATE_UNIX_FD":
			io.WriteString(conn, "AGREE_UNIX_FD\r\n")
		case strings.Contains(line, "EXTERNAL"):
			io.WriteString(conn, "OK 0123456789abcdef0123456789abcdef\r\n")
		default:
			io.WriteString(conn, "REJECTED EXTERNAL\r\n")
		}
	}
}

// question reads a message without a body and returns its serial number.
func question(r io.Reader) uint32 {
	head := make([]byte, 16)
	io.ReadFull(r, head)
	fields := int64(binary.LittleEndian.Uint32(head[12:]))
	io.CopyN(io.Discard, r, (fields+7)&^7)
	return binary.LittleEndian.Uint32(head[8:])
}
