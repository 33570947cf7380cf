// Package network decides about containers' networks: which there are, who has which address, which port of the machine leads where,
// and who is called what. It touches nothing: package wiring carries out what is decided here, with packages link (netlink) and
// firewall (nftables), and package nameserver answers from the Names.
//
// A network is a bridge of the machine, pn-<name>. A container's link is a veth pair: pv<hash> on the bridge, eth0, eth1 ... inside.
// Addresses belong to a container from its creation to its removal and are part of container.json, so that no lease can outlive its
// owner and a restart, or a reboot, keeps the address.
//
// What is refused: subnets that overlap with each other or with what the machine routes already, addresses that another container has,
// ports of the machine that another container or program has. The error names who has it.
package network

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// Default is the network of containers that name none. It is made when the first one needs it.
const Default = "bridge"

// BridgePrefix begins the name of each network's interface, so that others' rules can name them all: iifname "pn-*".
const BridgePrefix = "pn-"

// A Network is what a network's file holds.
type Network struct {
	Name       string            `json:"name"`
	Bridge     string            `json:"bridge"` // the interface
	Subnets    []Subnet          `json:"subnets"`
	Internal   bool              `json:"internal,omitempty"`    // no way out, none in
	DisableDNS bool              `json:"disable_dns,omitempty"` // no names
	DNS        []netip.Addr      `json:"dns,omitempty"`         // whom to ask for foreign names; default: whom the machine asks
	MTU        int               `json:"mtu,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Created    time.Time         `json:"created"`
}

// A Subnet is one range of addresses of a network.
type Subnet struct {
	Prefix  netip.Prefix `json:"prefix"`
	Gateway netip.Addr   `json:"gateway"`         // the bridge's address
	Range   *Range       `json:"range,omitempty"` // where addresses are taken from; nil: all of Prefix
}

// An Attachment is a container's place in one network.
type Attachment struct {
	Network   string       `json:"network"`
	Addresses []netip.Addr `json:"addresses,omitempty"` // one of each subnet; before the plan is made, those that were asked for
	Aliases   []string     `json:"aliases,omitempty"`   // further names
}

// CheckName accepts what may be a network's name and a file's.
func CheckName(name string) error {
	if !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`).MatchString(name) {
		return fmt.Errorf("network name %q: want letters, digits, _ . and - (not first), at most 63", name)
	}
	switch name {
	case "host", "none", "container", "ns", "default":
		return fmt.Errorf("network name %q: has a meaning of its own", name)
	}
	return nil
}

// BridgeName is the interface of a network: readable where the name is short enough for one (15 bytes), else a hash.
func BridgeName(network string) string {
	if len(BridgePrefix)+len(network) <= 15 {
		return BridgePrefix + network
	}
	return BridgePrefix + short(network, 12)
}

// HostLink is the name of the machine's end of an owner's link into a network.
func HostLink(owner, network string) string { return "pv" + short(owner+"\x00"+network, 12) }

func short(s string, n int) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])[:n]
}

// CheckInterface accepts what the kernel accepts as an interface's name and a unit's instance can be without escaping.
func CheckInterface(name string) error {
	if !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$`).MatchString(name) {
		return fmt.Errorf("interface %q: want 1 to 15 letters, digits, _ . and -", name)
	}
	return nil
}

// AddOption applies one --opt KEY=VALUE.
func (n *Network) AddOption(key, value string) error {
	switch key {
	case "mtu", "com.docker.network.driver.mtu":
		mtu, err := strconv.Atoi(value)
		if err != nil || mtu < 1280 || mtu > 65535 {
			return fmt.Errorf("option %s=%s: want a number from 1280 to 65535", key, value)
		}
		n.MTU = mtu
		return nil
	case "com.docker.network.bridge.name":
		n.Bridge = value
		return CheckInterface(value)
	case "isolate": // podman's; here networks are always apart
		if value != "true" && value != "strict" {
			return fmt.Errorf("option %s=%s: networks are always apart: want true", key, value)
		}
		return nil
	}
	return fmt.Errorf("option %q: want mtu, isolate=true or com.docker.network.bridge.name", key)
}

// Subnet returns the subnet that holds an address.
func (n *Network) Subnet(a netip.Addr) (Subnet, bool) {
	i := slices.IndexFunc(n.Subnets, func(s Subnet) bool { return s.Prefix.Contains(a) })
	if i < 0 {
		return Subnet{}, false
	}
	return n.Subnets[i], true
}

// Resolver is the address at which the network's names are answered; invalid if there is none.
func (n *Network) Resolver() netip.Addr {
	if n.DisableDNS || len(n.Subnets) == 0 {
		return netip.Addr{}
	}
	return n.Subnets[0].Gateway
}

// Validate checks a network that is about to be made, and fills in gateways. others are the networks there are, used is what the machine
// has addresses or routes for.
func (n *Network) Validate(others []*Network, used []netip.Prefix) error {
	if err := CheckName(n.Name); err != nil {
		return err
	}
	if n.Bridge == "" {
		n.Bridge = BridgeName(n.Name)
	}
	if err := CheckInterface(n.Bridge); err != nil {
		return err
	}
	for i := range n.Subnets {
		s := &n.Subnets[i]
		if err := s.complete(); err != nil {
			return err
		}
		for _, before := range n.Subnets[:i] {
			if before.Prefix.Overlaps(s.Prefix) {
				return fmt.Errorf("subnet %s overlaps with %s", s.Prefix, before.Prefix)
			}
		}
		for _, u := range used {
			if u.Overlaps(s.Prefix) && u.Bits() > 0 {
				return fmt.Errorf("subnet %s overlaps with %s, which the machine has an address or a route in", s.Prefix, u)
			}
		}
	}
	for _, o := range others {
		if o.Name == n.Name {
			return fmt.Errorf("network %s: %w", n.Name, ErrExists)
		}
		if o.Bridge == n.Bridge {
			return fmt.Errorf("interface %s is that of the network %s", n.Bridge, o.Name)
		}
		for _, s := range n.Subnets {
			for _, t := range o.Subnets {
				if s.Prefix.Overlaps(t.Prefix) {
					return fmt.Errorf("subnet %s overlaps with %s of the network %s", s.Prefix, t.Prefix, o.Name)
				}
			}
		}
	}
	return nil
}

// Errors a caller branches on.
var (
	ErrExists    = errors.New("a network with this name exists")
	ErrNoNetwork = errors.New("no such network")
)

// complete checks one subnet and takes its first address as the gateway if none is given.
func (s *Subnet) complete() error {
	p := s.Prefix
	if p != p.Masked() {
		return fmt.Errorf("subnet %s: has bits behind its length: want %s", p, p.Masked())
	}
	if p.Addr().BitLen()-p.Bits() < 2 || p.Bits() == 0 || p.Addr().Is4In6() {
		return fmt.Errorf("subnet %s: want room for two addresses at least", p)
	}
	if a := p.Addr(); a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.IsUnspecified() {
		return fmt.Errorf("subnet %s: want one of addresses that may be routed", p)
	}
	if !s.Gateway.IsValid() {
		s.Gateway = p.Addr().Next()
	}
	if !usable(p, s.Gateway) {
		return fmt.Errorf("gateway %s: not an address of a machine in %s", s.Gateway, p)
	}
	if r := s.Range; r != nil && (!p.Contains(r.First) || !p.Contains(r.Last)) {
		return fmt.Errorf("range %s: not inside of %s", r, p)
	}
	return nil
}

// usable reports whether a machine can have the address: not the subnet's own, nor the one for all.
func usable(p netip.Prefix, a netip.Addr) bool {
	if !p.Contains(a) || a == p.Addr() {
		return false
	}
	return !a.Is4() || p.Contains(a.Next())
}
