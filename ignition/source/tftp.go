package source

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/proa-os/proa/ignition/retry"
)

// Packets of RFC 1350 and 2347.
const (
	tftpRead  = 1
	tftpData  = 3
	tftpAck   = 4
	tftpError = 5
	tftpOAck  = 6

	tftpBlock  = 512  // of servers that know no options
	tftpWanted = 1428 // fits a frame
	tftpWait   = time.Second
	tftpTries  = 5
)

// tftp is a transfer: it reads block after block, and asks again for one that does not come.
type tftp struct {
	conn   *net.UDPConn
	server *net.UDPAddr // after the first packet, the port of this transfer
	fixed  bool
	last   []byte // what was sent last
	number uint16 // of the block that is expected
	size   int
	rest   []byte
	end    bool
	ctx    context.Context
}

func (f *Fetcher) openTFTP(ctx context.Context, u *url.URL) (io.ReadCloser, error) {
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "69")
	}
	if f.Route != nil {
		host = f.Route(host)
	}
	server, err := net.ResolveUDPAddr("udp", host)
	if err != nil {
		return nil, retry.Temporary(err)
	}
	conn, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, retry.Temporary(err)
	}
	t := &tftp{conn: conn, server: server, number: 1, size: tftpBlock, ctx: ctx}
	name := strings.TrimPrefix(u.Path, "/")
	if strings.Contains(name, "\x00") {
		return nil, errors.Join(errors.New("expected a path without NUL"), conn.Close())
	}
	t.last = append([]byte{0, tftpRead}, name+"\x00octet\x00blksize\x00"+strconv.Itoa(tftpWanted)+"\x00"...)
	if err := t.next(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return t, nil
}

func (t *tftp) Close() error { return t.conn.Close() }

func (t *tftp) Read(p []byte) (int, error) {
	for len(t.rest) == 0 {
		if t.end {
			return 0, io.EOF
		}
		if err := t.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, t.rest)
	t.rest = t.rest[n:]
	return n, nil
}

// next sends the last packet and waits for the block after it, several times.
func (t *tftp) next() error {
	if err := t.ctx.Err(); err != nil { // of a server that always has one more block
		return retry.Temporary(err)
	}
	for range tftpTries {
		if _, err := t.conn.WriteToUDP(t.last, t.server); err != nil {
			return retry.Temporary(err)
		}
		done, err := t.receive(time.Now().Add(tftpWait))
		if done || err != nil {
			return err
		}
		if t.ctx.Err() != nil {
			break
		}
	}
	return retry.Temporary(errors.New("the TFTP server does not answer"))
}

// receive takes packets until one brings the transfer on; done is false when the time is over.
func (t *tftp) receive(until time.Time) (done bool, err error) {
	if err := t.conn.SetReadDeadline(until); err != nil {
		return false, err
	}
	b := make([]byte, 4+tftpWanted)
	for {
		n, from, err := t.conn.ReadFromUDP(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false, nil
		}
		if err != nil {
			return false, retry.Temporary(err)
		}
		known := from.IP.Equal(t.server.IP) && (!t.fixed || from.Port == t.server.Port)
		if n < 4 || !known { // somebody else's
			continue
		}
		packet := b[4:n]
		switch op := binary.BigEndian.Uint16(b); {
		case op == tftpError:
			return false, t.refusal(binary.BigEndian.Uint16(b[2:]), packet)
		case op == tftpOAck && !t.fixed:
			t.size = blockSize(b[2:n])
			t.settle(from, 0)
			return true, t.next()
		case op == tftpData && binary.BigEndian.Uint16(b[2:]) == t.number:
			t.rest, t.end = bytes.Clone(packet), len(packet) < t.size
			t.settle(from, t.number)
			t.number++
			if t.end { // nobody answers the last acknowledgement
				_, err := t.conn.WriteToUDP(t.last, t.server)
				return true, err
			}
			return true, nil
		}
	}
}

// settle keeps to the port that has answered, and acknowledges a block.
func (t *tftp) settle(from *net.UDPAddr, number uint16) {
	t.server, t.fixed = from, true
	t.last = binary.BigEndian.AppendUint16([]byte{0, tftpAck}, number)
}

// blockSize reads the options of an OACK; a server may take a smaller size than was asked for.
func blockSize(options []byte) int {
	words := strings.Split(string(options), "\x00")
	for i := 0; i+1 < len(words); i += 2 {
		if n, err := strconv.Atoi(words[i+1]); err == nil && strings.EqualFold(words[i], "blksize") && n >= 8 && n <= tftpWanted {
			return n
		}
	}
	return tftpBlock
}

func (t *tftp) refusal(code uint16, text []byte) error {
	text, _, _ = bytes.Cut(text, []byte{0})
	err := fmt.Errorf("the TFTP server refuses with error %d: %.80q", code, text)
	if code == 0 || code == 3 { // unknown, disk full: not about this file
		return retry.Temporary(err)
	}
	return err
}
