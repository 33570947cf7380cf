package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// query asks a name server for the name servers of the root. Any answer to it will do.
func query(ctx context.Context, server string) error {
	return queryPort(ctx, net.JoinHostPort(server, "53"))
}

func queryPort(ctx context.Context, server string) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "udp", server)
	if err != nil {
		return err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return err
		}
	}
	const id = 0x5052
	// Header: id, recursion desired, one question; the name "." of type NS and class IN.
	question := []byte{id >> 8, id & 0xff, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1}
	if _, err := c.Write(question); err != nil {
		return err
	}
	answer := make([]byte, 1500)
	n, err := c.Read(answer)
	if err != nil {
		return err
	}
	if n < 12 || binary.BigEndian.Uint16(answer) != id || answer[2]&0x80 == 0 {
		return fmt.Errorf("%s does not speak DNS", server)
	}
	return nil
}

// ping sends one ICMP echo request and waits for its reply, RFC 792 and RFC 4443. The kernel fills in checksum and identifier, and gives back
// replies to this socket only.
func ping(ctx context.Context, host string) error {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return err
	}
	family, protocol, request, reply := unix.AF_INET, unix.IPPROTO_ICMP, byte(8), byte(0)
	if addr.Is6() {
		family, protocol, request, reply = unix.AF_INET6, unix.IPPROTO_ICMPV6, 128, 129
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return fmt.Errorf("open a socket for ping: %w", err)
	}
	f := os.NewFile(uintptr(fd), "ping")
	defer f.Close()
	to, err := socketAddress(addr)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, to); err != nil {
		return fmt.Errorf("ping %s: %w", host, err)
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(patience)
	}
	if err := f.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := f.Write([]byte{request, 0, 0, 0, 0, 0, 0, 1, 'p', 'r', 'o', 'a'}); err != nil {
		return fmt.Errorf("ping %s: %w", host, err)
	}
	b := make([]byte, 64)
	n, err := f.Read(b)
	if err != nil {
		return fmt.Errorf("ping %s: %w", host, err)
	}
	if n < 8 || b[0] != reply {
		return errors.New("ping " + host + ": no echo")
	}
	return nil
}

func socketAddress(a netip.Addr) (unix.Sockaddr, error) {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}, nil
	}
	to := &unix.SockaddrInet6{Addr: a.As16()}
	if zone := a.Zone(); zone != "" {
		i, err := net.InterfaceByName(zone)
		if err != nil {
			return nil, err
		}
		to.ZoneId = uint32(i.Index)
	}
	return to, nil
}
