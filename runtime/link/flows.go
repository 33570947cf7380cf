package link

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/network"
)

// ForgetFlows makes the kernel forget the UDP flows to ports of the machine. A sender that never pauses would otherwise go on being sent
// where its first packet went: to the machine before the port was published, or to the container that had it before.
func ForgetFlows(ports []network.Port) error {
	udp := map[uint16]bool{}
	for _, p := range ports {
		if p.Protocol == "udp" {
			udp[p.HostPort] = true
		}
	}
	if len(udp) == 0 {
		return nil
	}
	h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("open conntrack: %w", err)
	}
	defer h.Close()
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		if _, err := h.ConntrackDeleteFilters(netlink.ConntrackTable, family, flows(udp)); err != nil {
			return fmt.Errorf("forget UDP flows: %w", err)
		}
	}
	return nil
}

// flows matches UDP flows whose first packet went to one of the ports.
type flows map[uint16]bool

// MatchConntrackFlow is netlink's way to ask.
func (f flows) MatchConntrackFlow(c *netlink.ConntrackFlow) bool {
	return c.Forward.Protocol == unix.IPPROTO_UDP && f[c.Forward.DstPort]
}
