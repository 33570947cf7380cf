package link

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/network"
)

// PortIsFree finds out whether a program of the machine uses a port: its connections would go to the container. The error says which
// program. An address that the machine does not have (yet) is no reason.
func PortIsFree(p network.Port) error {
	for _, a := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		if p.HostIP.IsValid() {
			if a.Is4() != p.HostIP.Is4() {
				continue
			}
			a = p.HostIP
		}
		switch err := tryBind(a, p); {
		case errors.Is(err, unix.EADDRINUSE):
			return fmt.Errorf("port %s/%s: %s has it", p.Host(), p.Protocol, listener(p))
		case errors.Is(err, unix.EADDRNOTAVAIL), errors.Is(err, unix.EAFNOSUPPORT):
		case err != nil:
			return fmt.Errorf("port %s/%s: %w", p.Host(), p.Protocol, err)
		}
	}
	return nil
}

func tryBind(a netip.Addr, p network.Port) error {
	kind := unix.SOCK_STREAM
	if p.Protocol == "udp" {
		kind = unix.SOCK_DGRAM
	}
	domain, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(p.HostPort), Addr: a.As16()})
	if a.Is4() {
		domain, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(p.HostPort), Addr: a.As4()}
	}
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if domain == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return err
		}
	}
	if kind == unix.SOCK_STREAM { // connections that linger in TIME-WAIT are no program
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
	}
	return unix.Bind(fd, sa)
}

// listener names the program that has a port, as far as it can be found.
func listener(p network.Port) string {
	var inodes []string
	for _, table := range []string{p.Protocol, p.Protocol + "6"} {
		inodes = append(inodes, socketInodes(table, p)...)
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && slices.Contains(inodes, target) {
			pid := strings.Split(fd, "/")[2]
			comm, _ := os.ReadFile(filepath.Join("/proc", pid, "comm"))
			return fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(comm)), pid)
		}
	}
	return "another program"
}

// socketInodes reads /proc/net/TABLE: the second column is the local address, the fourth the state, the tenth the inode.
func socketInodes(table string, p network.Port) []string {
	f, err := os.Open("/proc/thread-self/net/" + table)
	if err != nil {
		return nil
	}
	defer f.Close()
	var out []string
	for sc := bufio.NewScanner(f); sc.Scan(); {
		c := strings.Fields(sc.Text())
		if len(c) < 10 {
			continue
		}
		_, port, _ := strings.Cut(c[1], ":")
		n, err := strconv.ParseUint(port, 16, 16)
		if err == nil && uint16(n) == p.HostPort && (c[3] == "0A" || p.Protocol == "udp") {
			out = append(out, "socket:["+c[9]+"]")
		}
	}
	return out
}
