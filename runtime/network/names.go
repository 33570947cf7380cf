package network

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Names is what the responders answer from, a file that is replaced at every change.
type Names struct {
	Networks map[string]map[string][]netip.Addr `json:"networks"` // network, name in lower case, addresses
	Clients  map[netip.Addr]Client              `json:"clients"`  // who may ask
	// Reverse is the name of an address, with its network.
	Reverse map[netip.Addr][2]string `json:"reverse"`
	// Resolvers are where names are answered: whoever is told to ask there for foreign names would ask in a circle.
	Resolvers []netip.Addr `json:"resolvers"`
}

// A Client is a container that asks.
type Client struct {
	Networks []string     `json:"networks"`        // those it is in, in its order
	Servers  []netip.Addr `json:"servers"`         // of its own, for foreign names
	Sealed   bool         `json:"sealed,omitzero"` // no way out: foreign names are refused
}

// NamesOf collects the names of endpoints.
func NamesOf(networks map[string]*Network, endpoints []*Endpoint) *Names {
	n := &Names{Networks: map[string]map[string][]netip.Addr{}, Clients: map[netip.Addr]Client{}, Reverse: map[netip.Addr][2]string{}}
	for _, name := range slices.Sorted(maps.Keys(networks)) {
		for _, s := range networks[name].Subnets {
			n.Resolvers = append(n.Resolvers, s.Gateway)
		}
	}
	for _, e := range endpoints {
		client := Client{Servers: e.DNS, Sealed: true}
		for _, l := range e.Links {
			net := networks[l.Network]
			if net == nil || net.DisableDNS {
				continue
			}
			client.Networks = append(client.Networks, l.Network)
			if !net.Internal {
				client.Sealed = false
			}
			if len(client.Servers) == 0 {
				client.Servers = net.DNS
			}
			if n.Networks[l.Network] == nil {
				n.Networks[l.Network] = map[string][]netip.Addr{}
			}
			for _, name := range append([]string{e.Name()}, l.Aliases...) {
				key := strings.ToLower(name)
				for _, a := range l.Addresses {
					if have := n.Networks[l.Network][key]; !slices.Contains(have, a) {
						n.Networks[l.Network][key] = append(have, a)
					}
				}
			}
			for _, a := range l.Addresses {
				n.Reverse[a] = [2]string{e.Name(), l.Network}
			}
		}
		for _, l := range e.Links {
			for _, a := range l.Addresses {
				if len(client.Networks) > 0 {
					n.Clients[a] = client
				}
			}
		}
	}
	return n
}

// Find returns the addresses a name has for a client, and whether there is such a name: in the client's networks in their order, as NAME
// or NAME.NETWORK.
func (n *Names) Find(c Client, name string) ([]netip.Addr, bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	for _, net := range c.Networks {
		if a := n.Networks[net][name]; len(a) > 0 {
			return a, true
		}
		if front, ok := strings.CutSuffix(name, "."+strings.ToLower(net)); ok {
			if a := n.Networks[net][front]; len(a) > 0 {
				return a, true
			}
		}
	}
	return nil, false
}

// FindAddr returns the name of an address in one of the client's networks.
func (n *Names) FindAddr(c Client, a netip.Addr) (string, bool) {
	r, ok := n.Reverse[a]
	if !ok || !slices.Contains(c.Networks, r[1]) {
		return "", false
	}
	return r[0] + "." + r[1], true
}
