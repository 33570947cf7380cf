package state

import "strings"

// Network is what worked of a machine's network at a moment.
type Network struct {
	IPv4   bool `json:"ipv4"` // an address with which it can leave its link
	IPv6   bool `json:"ipv6"`
	Route4 bool `json:"default_route_ipv4"`
	Route6 bool `json:"default_route_ipv6"`

	// The witnesses: who has answered.
	Gateway  bool `json:"gateway"`  // a default gateway, to a ping
	Resolver bool `json:"resolver"` // a name server, to a query
	Server   bool `json:"server"`   // the update server, to a connection
}

// Lost says what worked before an update and does not now; empty if the network is as good as it was. One of the witnesses is enough: a
// server may be down by itself, and a gateway need not answer, but if all who answered are silent, the machine is cut off.
func (before Network) Lost(now Network) string {
	var lost []string
	for _, x := range []struct {
		before, now bool
		what        string
	}{
		{before.IPv4, now.IPv4, "an IPv4 address"}, {before.IPv6, now.IPv6, "an IPv6 address"},
		{before.Route4, now.Route4, "an IPv4 default route"}, {before.Route6, now.Route6, "an IPv6 default route"},
	} {
		if x.before && !x.now {
			lost = append(lost, x.what)
		}
	}
	if len(lost) > 0 {
		return "before the update it had " + strings.Join(lost, " and ")
	}
	var silent []string
	for _, w := range []struct {
		before, now bool
		who         string
	}{{before.Gateway, now.Gateway, "the gateway"}, {before.Resolver, now.Resolver, "a name server"}, {before.Server, now.Server, "the update server"}} {
		if w.before && w.now {
			return ""
		}
		if w.before {
			silent = append(silent, w.who)
		}
	}
	if len(silent) == 0 {
		return ""
	}
	return "nobody answers: before the update " + strings.Join(silent, " and ") + " did"
}
