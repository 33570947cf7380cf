// Package network looks at what works of this machine's network: addresses, default routes, and who answers.
//
// The update agent looks before it arms a release and the health gate compares in the try (state.Network). Routes are read from
// /proc/net (proc_net(5)), name servers from resolved's list of the real ones. A gateway is asked by a ping (ICMP echo over an
// unprivileged datagram socket, as ping_group_range in /proc/sys/net/ipv4 allows), a name server by a query for the root's name servers (RFC
// 1035), the update server by a TCP connection that is closed at once: nothing that comes back is read but its being there.
package network

import (
	"bufio"
	"context"
	"encoding/hex"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/proa-os/proa/update-engine/state"
)

// Places of what is read.
const (
	routes4   = "/proc/net/route"
	routes6   = "/proc/net/ipv6_route"
	resolvers = "/run/systemd/resolve/resolv.conf"
)

// A route's flags (linux/route.h, linux/ipv6_route.h).
const (
	up     = 0x1
	reject = 0x200
)

// patience is how long somebody may take to answer; whoever lets one question go is asked again.
const (
	patience = 3 * time.Second
	asked    = 2
)

// Look looks at the network. servers are URLs; those without a host are not asked.
func Look(ctx context.Context, servers ...string) (state.Network, error) {
	var n state.Network
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return n, err
	}
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.IsGlobalUnicast() {
			if ip.IP.To4() != nil {
				n.IPv4 = true
			} else {
				n.IPv6 = true
			}
		}
	}
	four, gateways4 := defaults(routes4, parse4)
	six, gateways6 := defaults(routes6, parse6)
	n.Route4, n.Route6 = four, six
	var wg sync.WaitGroup
	wg.Go(func() { n.Gateway = anyone(ctx, append(gateways4, gateways6...), ping) })
	wg.Go(func() { n.Resolver = anyone(ctx, nameServers(resolvers), query) })
	wg.Go(func() { n.Server = anyone(ctx, hosts(servers), connect) })
	wg.Wait()
	return n, nil
}

// anyone reports whether one of those who are asked, all at once, answers.
func anyone(ctx context.Context, who []string, ask func(ctx context.Context, who string) error) bool {
	ctx, cancel := context.WithTimeout(ctx, asked*patience)
	defer cancel()
	answers := make(chan bool, len(who))
	for _, w := range who {
		go func() {
			for range asked {
				one, stop := context.WithTimeout(ctx, patience)
				err := ask(one, w)
				stop()
				if err == nil {
					answers <- true
					return
				}
			}
			answers <- false
		}()
	}
	for range who {
		if <-answers {
			return true
		}
	}
	return false
}

// hosts are the host:port of URLs.
func hosts(servers []string) (list []string) {
	for _, s := range servers {
		u, err := url.Parse(s)
		if err != nil || u.Hostname() == "" {
			continue
		}
		port := u.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443", "oci+http": "80", "oci": "443"}[u.Scheme]
		}
		if port != "" {
			list = append(list, net.JoinHostPort(u.Hostname(), port))
		}
	}
	return list
}

func connect(ctx context.Context, host string) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", host)
	if err != nil {
		return err
	}
	return c.Close()
}

// defaults reads a table of routes: whether there is a default route, and its gateways.
func defaults(table string, parse func(fields []string) (gateway string, ok bool)) (found bool, gateways []string) {
	f, err := os.Open(table)
	if err != nil {
		return false, nil // without IPv6 there is no such file
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		gateway, ok := parse(strings.Fields(lines.Text()))
		if !ok {
			continue
		}
		found = true
		if gateway != "" {
			gateways = append(gateways, gateway)
		}
	}
	return found, gateways
}

// parse4 reads a line of /proc/net/route: Iface Destination Gateway Flags RefCnt Use Metric Mask ..., addresses in the machine's byte
// order, which is the little one wherever Proa runs.
func parse4(f []string) (gateway string, ok bool) {
	if len(f) < 8 || f[1] != "00000000" || f[7] != "00000000" {
		return "", false
	}
	flags, err := strconv.ParseUint(f[3], 16, 32)
	if err != nil || flags&up == 0 || flags&reject != 0 {
		return "", false
	}
	b, err := hex.DecodeString(f[2])
	if err != nil || len(b) != 4 || f[2] == "00000000" {
		return "", true
	}
	return netip.AddrFrom4([4]byte{b[3], b[2], b[1], b[0]}).String(), true
}

// parse6 reads a line of /proc/net/ipv6_route: destination, its length, source, its length, next hop, metric, references, uses, flags, device.
func parse6(f []string) (gateway string, ok bool) {
	zero := strings.Repeat("0", 32)
	if len(f) < 10 || f[0] != zero || f[1] != "00" || f[9] == "lo" {
		return "", false
	}
	flags, err := strconv.ParseUint(f[8], 16, 32)
	if err != nil || flags&up == 0 || flags&reject != 0 {
		return "", false
	}
	b, err := hex.DecodeString(f[4])
	if err != nil || len(b) != 16 || f[4] == zero {
		return "", true
	}
	a := netip.AddrFrom16([16]byte(b))
	if a.IsLinkLocalUnicast() {
		a = a.WithZone(f[9])
	}
	return a.String(), true
}

// nameServers reads resolv.conf(5).
func nameServers(file string) (list []string) {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	for lines := bufio.NewScanner(io.LimitReader(f, 1<<16)); lines.Scan(); {
		if w := strings.Fields(lines.Text()); len(w) >= 2 && w[0] == "nameserver" {
			list = append(list, w[1])
		}
	}
	return list
}
