package state

import (
	"strings"
	"testing"
)

func TestNetworkLost(t *testing.T) {
	all := Network{IPv4: true, IPv6: true, Route4: true, Route6: true, Gateway: true, Resolver: true, Server: true}
	but := func(change func(*Network)) Network {
		n := all
		change(&n)
		return n
	}
	for _, c := range []struct {
		name        string
		before, now Network
		want        string
	}{
		{"nothing changed", all, all, ""},
		{"nothing there before", Network{}, Network{}, ""},
		{"better than before", Network{}, all, ""},
		{"no address", all, but(func(n *Network) { n.IPv4 = false }), "an IPv4 address"},
		{"no route", all, but(func(n *Network) { n.Route4, n.Route6 = false, false }), "an IPv4 default route and an IPv6 default route"},
		{"the server is down", all, but(func(n *Network) { n.Server = false }), ""},
		{"only the server answers", all, but(func(n *Network) { n.Gateway, n.Resolver = false, false }), ""},
		{"cut off", all, but(func(n *Network) { n.Gateway, n.Resolver, n.Server = false, false, false }), "the gateway and a name server and the update server did"},
		{"the only witness is silent", Network{IPv4: true, Server: true}, Network{IPv4: true}, "nobody answers: before the update the update server did"},
		{"another witness than before", Network{Server: true}, Network{Gateway: true}, "nobody answers"},
		{"no witness ever", Network{IPv4: true}, Network{IPv4: true}, ""},
	} {
		if got := c.before.Lost(c.now); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}
