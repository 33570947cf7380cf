package network

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// A Port of the machine that leads into a container.
type Port struct {
	HostIP   netip.Addr `json:"host_ip,omitzero"`    // zero: every address of the machine
	HostPort uint16     `json:"host_port,omitempty"` // 0: a free one is chosen when the container is made
	Port     uint16     `json:"port"`                // the container's
	Protocol string     `json:"protocol"`            // tcp or udp
}

// most is how many ports one flag may stand for.
const most = 4096

// ParsePublish reads docker's [IP:][HOST:]CONTAINER[/tcp|udp], each port a number or a range, an IPv6 address in brackets.
func ParsePublish(v string) ([]Port, error) {
	const want = "want [IP:][HOST:]CONTAINER[/tcp|udp], for example 8080:80, 127.0.0.1:53:53/udp or [::1]:8000-8003:80-83"
	rest, protocol, given := strings.Cut(v, "/")
	if !given {
		protocol = "tcp"
	}
	if protocol != "tcp" && protocol != "udp" {
		return nil, fmt.Errorf("protocol %q: want tcp or udp", protocol)
	}
	var ip netip.Addr
	if strings.HasPrefix(rest, "[") {
		inside, behind, ok := strings.Cut(rest[1:], "]:")
		a, err := netip.ParseAddr(inside)
		if !ok || err != nil || !a.Is6() || a.Is4In6() || a.Zone() != "" {
			return nil, errors.New(want)
		}
		ip, rest = a, behind
	} else if f := strings.Split(rest, ":"); len(f) == 3 {
		if f[0] != "" {
			a, err := netip.ParseAddr(f[0])
			if err != nil || !a.Is4() {
				return nil, fmt.Errorf("address %q: %s", f[0], want)
			}
			ip = a
		}
		rest = f[1] + ":" + f[2]
	}
	host, inner, ok := strings.Cut(rest, ":")
	if !ok {
		host, inner = "", rest
	}
	first, last, err := portRange(inner)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, want)
	}
	hostFirst, hostLast := 0, -1
	if host != "" {
		if hostFirst, hostLast, err = portRange(host); err != nil {
			return nil, fmt.Errorf("%w: %s", err, want)
		}
		if hostLast-hostFirst != last-first {
			return nil, fmt.Errorf("ranges %s and %s differ in length", host, inner)
		}
	}
	if last-first >= most {
		return nil, fmt.Errorf("range %s: want at most %d ports", inner, most)
	}
	var out []Port
	for i := range last - first + 1 {
		p := Port{HostIP: ip, Port: uint16(first + i), Protocol: protocol}
		if host != "" {
			p.HostPort = uint16(hostFirst + i)
		}
		out = append(out, p)
	}
	return out, nil
}

func portRange(s string) (int, int, error) {
	a, b, ok := strings.Cut(s, "-")
	if !ok {
		b = a
	}
	first, err1 := strconv.ParseUint(a, 10, 16)
	last, err2 := strconv.ParseUint(b, 10, 16)
	if err1 != nil || err2 != nil || first == 0 || last < first {
		return 0, 0, fmt.Errorf("port %q", s)
	}
	return int(first), int(last), nil
}

// Host is the machine's side of a port as people write it.
func (p Port) Host() string {
	switch {
	case !p.HostIP.IsValid():
		return fmt.Sprintf("*:%d", p.HostPort)
	case p.HostIP.Is6():
		return fmt.Sprintf("[%s]:%d", p.HostIP, p.HostPort)
	}
	return fmt.Sprintf("%s:%d", p.HostIP, p.HostPort)
}

// String is a port as ps shows it: *:8080->80/tcp.
func (p Port) String() string { return fmt.Sprintf("%s->%d/%s", p.Host(), p.Port, p.Protocol) }

// Overlaps reports whether two ports want the same traffic.
func (p Port) Overlaps(q Port) bool {
	same := !p.HostIP.IsValid() || !q.HostIP.IsValid() || p.HostIP == q.HostIP || p.HostIP.IsUnspecified() && p.HostIP.Is4() == q.HostIP.Is4() ||
		q.HostIP.IsUnspecified() && p.HostIP.Is4() == q.HostIP.Is4()
	return same && p.HostPort == q.HostPort && p.Protocol == q.Protocol
}

// Holder is who has published ports.
type Holder struct {
	Owner string
	Ports []Port
}

// PlanPorts chooses machine ports for those that name none and refuses those that somebody else has. free asks the machine whether a
// program listens there; its error says which.
func PlanPorts(ports []Port, others []Holder, free func(Port) error) ([]Port, error) {
	out := make([]Port, 0, len(ports))
	taken := func(p Port) error {
		for _, o := range others {
			if slices.ContainsFunc(o.Ports, p.Overlaps) {
				return fmt.Errorf("port %s/%s: the container %s has it", p.Host(), p.Protocol, o.Owner)
			}
		}
		if slices.ContainsFunc(out, p.Overlaps) {
			return fmt.Errorf("port %s/%s: published twice", p.Host(), p.Protocol)
		}
		return free(p)
	}
	for _, p := range ports {
		if p.HostPort != 0 {
			if err := taken(p); err != nil {
				return nil, err
			}
			out = append(out, p)
			continue
		}
		// Where the kernel takes none of its own from: below net.ipv4.ip_local_port_range, above what has a name.
		for p.HostPort = 20000; p.HostPort < 32768 && taken(p) != nil; p.HostPort++ {
		}
		if p.HostPort == 32768 {
			return nil, errors.New("all ports from 20000 to 32767 are taken: name one")
		}
		out = append(out, p)
	}
	return out, nil
}
