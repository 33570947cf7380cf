// Package link makes the interfaces of containers' networks over rtnetlink: bridges, veth pairs, addresses, routes, and the settings of
// both sides. It is an edge; package network decides, package wiring orders.
//
// Everything it makes carries its name in its alias ("proa network NAME", "proa container OWNER network NAME"; ip -d link shows it), and
// it removes nothing that does not. A pair is made in one call with one end in the container's namespace already, so that the kernel
// removes it with the namespace, whatever is killed when.
//
// Addresses are used at once: their duplicate address detection is off, because package network gives no address twice.
//
// Spec: rtnetlink(7), linux Documentation/networking/ip-sysctl.rst.
package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/network"
)

const (
	bridgeAlias = "proa network "
	vethAlias   = "proa container "
)

// Machine is the interfaces of the machine's own network namespace.
type Machine struct {
	h *netlink.Handle
}

// Open opens those of the namespace of this thread.
func Open() (*Machine, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	return &Machine{h: h}, nil
}

// Close closes the socket.
func (m *Machine) Close() { m.h.Close() }

// Used returns what the machine has addresses in or routes to, but for what its containers' networks have.
func (m *Machine) Used(except func(bridge string) bool) ([]netip.Prefix, error) {
	links, err := whole(m.h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	ours := map[int]bool{}
	for _, l := range links {
		ours[l.Attrs().Index] = except(l.Attrs().Name)
	}
	routes, err := whole(func() ([]netlink.Route, error) {
		return m.h.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var out []netip.Prefix
	for _, r := range routes {
		if r.Dst == nil || ours[r.LinkIndex] || r.Dst.IP.IsMulticast() || r.Dst.IP.IsLinkLocalUnicast() {
			continue
		}
		ones, _ := r.Dst.Mask.Size()
		if a, ok := netip.AddrFromSlice(r.Dst.IP); ok {
			out = append(out, netip.PrefixFrom(a.Unmap(), ones))
		}
	}
	return out, nil
}

// whole asks for a list until nothing has changed while the kernel told it: links of containers that end go at any time.
func whole[T any](list func() ([]T, error)) ([]T, error) {
	for try := 1; ; try++ {
		out, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) || try == 100 {
			return out, err
		}
	}
}

// Links are the interfaces that this package has made.
type Links struct {
	Bridges map[string]string // name of each, and of its network
	Veths   map[string]bool   // the machine's ends
}

// List returns what is there of ours.
func (m *Machine) List() (Links, error) {
	out := Links{Bridges: map[string]string{}, Veths: map[string]bool{}}
	links, err := whole(m.h.LinkList)
	if err != nil {
		return out, fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		if !isOurs(l) {
			continue
		}
		if a := l.Attrs(); l.Type() == "bridge" {
			out.Bridges[a.Name] = strings.TrimPrefix(a.Alias, bridgeAlias)
		} else {
			out.Veths[a.Name] = true
		}
	}
	return out, nil
}

// EnsureBridge makes the interface of a network, and repairs one that is half made.
func (m *Machine) EnsureBridge(n *network.Network) error {
	l, err := m.h.LinkByName(n.Bridge)
	if missing(err) {
		attrs := netlink.NewLinkAttrs()
		// The hardware address is given so that it does not change with the ports, and so that the bridge is known as ours from the
		// beginning: the kernel takes no alias in the same call.
		attrs.Name, attrs.HardwareAddr, attrs.MTU = n.Bridge, network.HardwareAddr(n.Subnets[0].Gateway), n.MTU
		if err := m.h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return fmt.Errorf("make bridge %s: %w", n.Bridge, err)
		}
		l, err = m.h.LinkByName(n.Bridge)
	}
	if err == nil && (l.Type() != "bridge" || l.Attrs().Alias != bridgeAlias+n.Name && !unnamed(l)) {
		return fmt.Errorf("interface %s: there is one that is not of the network %s (%s %q): remove it (ip link del %s), or make the network with another --interface-name",
			n.Bridge, n.Name, l.Type(), l.Attrs().Alias, n.Bridge)
	}
	if err == nil && unnamed(l) {
		err = m.h.LinkSetAlias(l, bridgeAlias+n.Name)
	}
	if err != nil {
		return fmt.Errorf("make bridge %s: %w", n.Bridge, err)
	}
	if err := m.settleBridge(l, n); err != nil {
		return fmt.Errorf("set up bridge %s: %w", n.Bridge, err)
	}
	return nil
}

// settleBridge gives a bridge its addresses and takes it up.
func (m *Machine) settleBridge(l netlink.Link, n *network.Network) error {
	// A container speaks for its own address only (rp_filter), and is answered from 127.0.0.1 where a port is published there
	// (route_localnet: the firewall's guard keeps the machine's own loopback services from it).
	for _, s := range [][2]string{
		{"net/ipv4/conf/%s/route_localnet", "1"}, {"net/ipv4/conf/%s/rp_filter", "1"}, {"net/ipv4/conf/%s/accept_redirects", "0"}, {"net/ipv4/conf/%s/send_redirects", "0"},
		{"net/ipv6/conf/%s/accept_dad", "0"}, {"net/ipv6/conf/%s/accept_ra", "0"}, {"net/ipv6/conf/%s/accept_redirects", "0"},
	} {
		if err := set(fmt.Sprintf(s[0], n.Bridge), s[1]); err != nil {
			return err
		}
	}
	for _, s := range n.Subnets {
		p := netip.PrefixFrom(s.Gateway, s.Prefix.Bits())
		if p.Addr().Is6() && !HasIPv6() {
			continue
		}
		if err := m.h.AddrReplace(l, address(p)); err != nil {
			return fmt.Errorf("add address %s: %w", p, err)
		}
	}
	return m.h.LinkSetUp(l)
}

// Remove removes an interface of ours; that it is not there is no error.
func (m *Machine) Remove(name string) error {
	l, err := m.h.LinkByName(name)
	if missing(err) {
		return nil
	}
	if err == nil {
		if !isOurs(l) {
			return fmt.Errorf("interface %s: not made by containerctl (alias %q): it stays", name, l.Attrs().Alias)
		}
		if err = m.h.LinkDel(l); missing(err) || errors.Is(err, unix.ENODEV) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("remove interface %s: %w", name, err)
	}
	return nil
}

// Plug makes a link between the namespace that fd is of and the bridge. rank orders the default routes of a namespace's links.
func (m *Machine) Plug(owner string, l network.Link, fd int, rank int) error {
	bridge, err := m.h.LinkByName(l.Bridge)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", l.Bridge, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex, attrs.MTU, attrs.HardwareAddr = l.Host, bridge.Attrs().Index, l.MTU, network.HostHardwareAddr(l.Host)
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerNamespace, veth.PeerHardwareAddr, veth.PeerMTU = l.Name, netlink.NsFd(fd), network.HardwareAddr(l.Addresses...), uint32(l.MTU)
	if err := m.h.LinkAdd(veth); err != nil {
		return fmt.Errorf("make link %s: %w", l.Host, err)
	}
	host, err := m.h.LinkByName(l.Host)
	if err != nil {
		return fmt.Errorf("make link %s: %w", l.Host, err)
	}
	if err := m.h.LinkSetAlias(host, fmt.Sprintf("%s%s network %s", vethAlias, owner, l.Network)); err != nil {
		return fmt.Errorf("name link %s: %w", l.Host, err)
	}
	// The bridge's port has no address of its own: nothing is to be sent to it.
	if err := set("net/ipv6/conf/"+l.Host+"/disable_ipv6", "1"); err != nil {
		return err
	}
	if bridgeFilters() {
		if err := m.h.LinkSetHairpin(host, true); err != nil {
			return fmt.Errorf("set up link %s: %w", l.Host, err)
		}
	}
	if err := m.h.LinkSetUp(host); err != nil {
		return fmt.Errorf("take up link %s: %w", l.Host, err)
	}
	return apart(func() error {
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace of %s: %w", owner, err)
		}
		return settleInside(l, rank)
	})
}

// bridgeFilters reports whether the kernel shows frames that a bridge passes on to the firewall (br_netfilter). What a container sends to
// its own published port is then sent back by the bridge, which it does only if told so.
func bridgeFilters() bool {
	b, err := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-iptables")
	return err == nil && strings.TrimSpace(string(b)) != "0"
}

// settleInside sets up the container's end, from inside.
func settleInside(l network.Link, rank int) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open rtnetlink in the container: %w", err)
	}
	defer h.Close()
	eth, err := h.LinkByName(l.Name)
	if err != nil {
		return fmt.Errorf("link %s in the container: %w", l.Name, err)
	}
	for _, p := range l.Prefixes {
		if p.Addr().Is6() && !HasIPv6() {
			continue
		}
		if err := h.AddrAdd(eth, address(p)); err != nil {
			return fmt.Errorf("add address %s in the container: %w", p, err)
		}
	}
	if err := h.LinkSetUp(eth); err != nil {
		return fmt.Errorf("take up %s in the container: %w", l.Name, err)
	}
	for _, g := range l.Gateways {
		if g.Is6() && !HasIPv6() {
			continue
		}
		all := &net.IPNet{IP: make(net.IP, len(g.AsSlice())), Mask: make(net.IPMask, len(g.AsSlice()))}
		r := &netlink.Route{LinkIndex: eth.Attrs().Index, Gw: net.IP(g.AsSlice()), Dst: all, Priority: 100 + rank}
		if err := h.RouteAdd(r); err != nil {
			return fmt.Errorf("add default route by %s in the container: %w", g, err)
		}
	}
	return nil
}

// address is without duplicate address detection.
func address(p netip.Prefix) *netlink.Addr {
	bits := p.Addr().BitLen()
	a := &netlink.Addr{IPNet: &net.IPNet{IP: net.IP(p.Addr().AsSlice()), Mask: net.CIDRMask(p.Bits(), bits)}}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

// isOurs reports whether this package has made an interface.
func isOurs(l netlink.Link) bool {
	alias := l.Attrs().Alias
	switch l.Type() {
	case "bridge":
		return strings.HasPrefix(alias, bridgeAlias) || unnamed(l)
	case "veth":
		return strings.HasPrefix(alias, vethAlias) || unnamed(l)
	}
	return false
}

// unnamed reports whether an interface is ours and its maker was killed before it got its alias.
func unnamed(l netlink.Link) bool {
	return l.Attrs().Alias == "" && network.OurHardwareAddr(l.Attrs().HardwareAddr)
}

func missing(err error) bool {
	var e netlink.LinkNotFoundError
	return errors.As(err, &e)
}
