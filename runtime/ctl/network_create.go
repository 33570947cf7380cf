package ctl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/proa-os/proa/internal/command"
	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/network"
)

func networkCreateVerb() verb {
	return verb{name: "create", args: "NETWORK", what: "make a network: a bridge of the machine with addresses and names of its own", min: 1, max: 1,
		more: `Containers of one network reach each other, by name as well; those of different networks do not. Without --subnet a free
one is chosen, and one of IPv6.`,
		examples: []string{"containerctl network create backend", "containerctl network create --internal --subnet 10.20.0.0/24 db"},
		setup: func(s *flagset.Set) action {
			f := &createFlags{}
			f.flags(s)
			return f.create
		}}
}

// createFlags are those of network create.
type createFlags struct {
	n        network.Network
	subnets  []netip.Prefix
	gateways []netip.Addr
	ranges   []network.Range
	ipv6     *bool
	ignore   bool
}

func prefixFlag(list *[]netip.Prefix) func(string) error {
	return func(v string) error {
		p, err := netip.ParsePrefix(v)
		if err != nil {
			return errors.New("want a range such as 10.20.0.0/24")
		}
		*list = append(*list, p)
		return nil
	}
}

func (f *createFlags) flags(s *flagset.Set) {
	driverFlag(s, "bridge")
	s.Func("subnet", "RANGE", "its addresses; once more for IPv6", prefixFlag(&f.subnets))
	s.Func("gateway", "ADDRESS", "the machine's address in a subnet (default: the first)", addressFlag(&f.gateways))
	s.Func("ip-range", "RANGE", "part of a subnet that containers get addresses from: a range, or FIRST-LAST", func(v string) error {
		r, err := network.ParseRange(v)
		f.ranges = append(f.ranges, r)
		return err
	})
	s.Func("ipv6", "", "with IPv6 (the default without --subnet)", func(v string) error {
		on := v == "true"
		f.ipv6 = &on
		if v != "true" && v != "false" {
			return errors.New("want true or false")
		}
		return nil
	})
	s.Bool(&f.n.Internal, "internal", "no way out of it and none in")
	s.Bool(&f.n.DisableDNS, "disable-dns", "containers do not find each other by name")
	s.Func("dns", "ADDRESS", "whom to ask for names that are not containers'", addressFlag(&f.n.DNS))
	s.Func("interface-name", "NAME", "of the bridge (default: pn-NETWORK)", func(v string) error { f.n.Bridge = v; return network.CheckInterface(v) })
	labelFlag(s, "network", &f.n.Labels)
	s.Func("o,opt", "KEY=VALUE", "mtu, isolate=true (always so), com.docker.network.bridge.name", func(v string) error {
		k, val, _ := strings.Cut(v, "=")
		return f.n.AddOption(k, val)
	})
	s.Bool(&f.ignore, "ignore", "that there is one is no error")
}

func (f *createFlags) create(_ context.Context, c *call) error {
	n := &f.n
	n.Name = c.args[0]
	for _, p := range f.subnets {
		n.Subnets = append(n.Subnets, network.Subnet{Prefix: p})
	}
	for _, g := range f.gateways {
		if s := f.subnetOf(g); s == nil {
			return command.Wrong("create: --gateway %s: in no --subnet", g)
		} else if s.Gateway.IsValid() {
			return command.Wrong("create: --gateway %s: the second in %s", g, s.Prefix)
		} else {
			s.Gateway = g
		}
	}
	for _, r := range f.ranges {
		s := f.subnetOf(r.First)
		if s == nil {
			return command.Wrong("create: --ip-range %s: in no --subnet", r)
		}
		s.Range = &r
	}
	ipv6 := len(f.subnets) == 0
	if f.ipv6 != nil {
		ipv6 = *f.ipv6
	}
	err := c.wires().Create(n, ipv6)
	if err != nil && !(f.ignore && errors.Is(err, network.ErrExists)) {
		return err
	}
	fmt.Fprintln(c.Out, n.Name)
	return nil
}

func (f *createFlags) subnetOf(a netip.Addr) *network.Subnet {
	for i := range f.n.Subnets {
		if f.n.Subnets[i].Prefix.Contains(a) {
			return &f.n.Subnets[i]
		}
	}
	return nil
}
