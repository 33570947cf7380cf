package network

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// NamespacePrefix begins the owner's name of a namespace without a container.
const NamespacePrefix = "ns:"

// An Endpoint is what this boot knows of a namespace that is attached: a file in /run, written before anything is done, so that
// whatever is half done has a name.
type Endpoint struct {
	Owner string       `json:"owner"` // a container's name, or ns:NAME
	Links []Link       `json:"links"`
	Ports []Port       `json:"ports,omitempty"`
	DNS   []netip.Addr `json:"dns,omitempty"` // whom to ask for foreign names; default: the network's
	Ready bool         `json:"ready"`         // all of it is done
}

// A Link is an endpoint's place in one network.
type Link struct {
	Network   string         `json:"network"`
	Bridge    string         `json:"bridge"`
	Host      string         `json:"host"` // the machine's end
	Name      string         `json:"name"` // eth0 ...
	Addresses []netip.Addr   `json:"addresses"`
	Prefixes  []netip.Prefix `json:"prefixes"` // the addresses with their subnets' lengths
	Gateways  []netip.Addr   `json:"gateways"` // none in a network without a way out
	Aliases   []string       `json:"aliases,omitempty"`
	MTU       int            `json:"mtu,omitempty"`
}

// Name is what the endpoint is called by others.
func (e *Endpoint) Name() string { return strings.TrimPrefix(e.Owner, NamespacePrefix) }

// NewLink joins a network and an attachment whose addresses are planned.
func NewLink(owner string, n *Network, a Attachment, name string) Link {
	l := Link{Network: n.Name, Bridge: n.Bridge, Host: HostLink(owner, n.Name), Name: name, Addresses: a.Addresses, Aliases: a.Aliases, MTU: n.MTU}
	for _, addr := range a.Addresses {
		s, ok := n.Subnet(addr)
		if !ok {
			continue
		}
		l.Prefixes = append(l.Prefixes, netip.PrefixFrom(addr, s.Prefix.Bits()))
		if !n.Internal {
			l.Gateways = append(l.Gateways, s.Gateway)
		}
	}
	return l
}

// FreeName is the first of eth0, eth1 ... that no link has.
func (e *Endpoint) FreeName() string {
	for i := 0; ; i++ {
		name := "eth" + strconv.Itoa(i)
		if !slices.ContainsFunc(e.Links, func(l Link) bool { return l.Name == name }) {
			return name
		}
	}
}

// Target is where the endpoint's published ports lead: its first address of each family in a network with a way out.
func (e *Endpoint) Target(v4 bool) netip.Addr {
	for _, l := range e.Links {
		if len(l.Gateways) == 0 {
			continue
		}
		for _, a := range l.Addresses {
			if a.Is4() == v4 {
				return a
			}
		}
	}
	return netip.Addr{}
}

// Rules is what the firewall is to hold.
type Rules struct {
	Bridges   []string     // interfaces of networks with an endpoint
	Internal  []string     // those of them without a way out
	Resolvers []netip.Addr // at which names are answered
	Members   []Member
	Forwards  []Forward
	// Closed are the address families in which the machine forwards for our sake only: nothing else is forwarded.
	Closed4, Closed6 bool
}

// A Member is an address in a network.
type Member struct {
	Address netip.Addr
	Bridge  string
}

// A Forward sends a port of the machine to a container.
type Forward struct {
	From     netip.Addr // invalid: every address of the machine
	Port     uint16
	Protocol string
	To       netip.AddrPort
}

// RulesOf says what the firewall is to hold for these endpoints.
func RulesOf(networks map[string]*Network, endpoints []*Endpoint) Rules {
	var r Rules
	for _, e := range endpoints {
		for _, l := range e.Links {
			for _, a := range l.Addresses {
				r.Members = append(r.Members, Member{Address: a, Bridge: l.Bridge})
			}
			if slices.Contains(r.Bridges, l.Bridge) {
				continue
			}
			r.Bridges = append(r.Bridges, l.Bridge)
			if n := networks[l.Network]; n != nil {
				if n.Internal {
					r.Internal = append(r.Internal, l.Bridge)
				}
				if !n.DisableDNS {
					for _, s := range n.Subnets {
						r.Resolvers = append(r.Resolvers, s.Gateway)
					}
				}
			}
		}
		for _, p := range e.Ports {
			r.Forwards = append(r.Forwards, e.forwards(p)...)
		}
	}
	return r
}

// forwards is one port for IPv4 and IPv6, as far as its address and the container's go.
func (e *Endpoint) forwards(p Port) []Forward {
	var out []Forward
	for _, v4 := range []bool{true, false} {
		to := e.Target(v4)
		if !to.IsValid() || p.HostIP.IsValid() && p.HostIP.Is4() != v4 {
			continue
		}
		f := Forward{From: p.HostIP, Port: p.HostPort, Protocol: p.Protocol, To: netip.AddrPortFrom(to, p.Port)}
		if p.HostIP.IsUnspecified() {
			f.From = netip.Addr{}
		}
		out = append(out, f)
	}
	return out
}
