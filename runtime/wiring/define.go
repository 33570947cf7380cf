package wiring

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/proa-os/proa/runtime/link"
	"github.com/proa-os/proa/runtime/network"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// Create defines a network. Without subnets it gets a free one, and with ipv6 one of IPv6 as well.
func (w *Wiring) Create(n *network.Network, ipv6 bool) error {
	h, err := w.hold()
	if err != nil {
		return err
	}
	defer h.release()
	return h.create(n, ipv6)
}

func (h *held) create(n *network.Network, ipv6 bool) error {
	bridges := map[string]bool{}
	var others []*network.Network
	for _, name := range sortedKeys(h.networks) {
		others = append(others, h.networks[name])
		bridges[h.networks[name].Bridge] = true
	}
	used, err := h.machine.Used(func(b string) bool { return bridges[b] })
	if err != nil {
		return err
	}
	random := make([]byte, 5)
	rand.Read(random)
	has6 := slices.ContainsFunc(n.Subnets, func(s network.Subnet) bool { return s.Prefix.Addr().Is6() })
	switch {
	case len(n.Subnets) == 0:
		if n.Subnets, err = network.Choose(others, used, ipv6, random); err != nil {
			return fmt.Errorf("network %s: %w", n.Name, err)
		}
	case ipv6 && !has6:
		n.Subnets = append(n.Subnets, network.Choose6(random))
	}
	if err := n.Validate(others, used); err != nil {
		return err
	}
	if n.Created.IsZero() {
		n.Created = time.Now().UTC().Truncate(time.Second)
	}
	if err := write(h.definition(n.Name), n, 0o600); err != nil {
		return fmt.Errorf("network %s: %w", n.Name, err)
	}
	h.networks[n.Name] = n
	return nil
}

func (w *Wiring) definition(name string) string { return filepath.Join(w.Networks, name+".json") }

// List returns all networks by name.
func (w *Wiring) List() (map[string]*network.Network, error) {
	h, err := w.hold()
	if err != nil {
		return nil, err
	}
	defer h.release()
	return h.networks, nil
}

// Get returns a network; the default one is made if it is not there.
func (w *Wiring) Get(name string) (*network.Network, error) {
	h, err := w.hold()
	if err != nil {
		return nil, err
	}
	defer h.release()
	return h.get(name)
}

func (h *held) get(name string) (*network.Network, error) {
	if n := h.networks[name]; n != nil {
		return n, nil
	}
	if name != network.Default {
		return nil, fmt.Errorf("network %s: %w: make it first: containerctl network create %s", name, network.ErrNoNetwork, name)
	}
	n := &network.Network{Name: network.Default}
	return n, h.create(n, true)
}

// Remove forgets a network nobody is in. That nothing that does not run wants it is the caller's to see.
func (w *Wiring) Remove(ctx context.Context, name string) error {
	h, err := w.hold()
	if err != nil {
		return err
	}
	defer h.release()
	if h.networks[name] == nil {
		return fmt.Errorf("network %s: %w", name, network.ErrNoNetwork)
	}
	if err := h.sweepAndSettle(ctx); err != nil {
		return err
	}
	for _, o := range sortedKeys(h.endpoints) {
		if slices.ContainsFunc(h.endpoints[o].Links, func(l network.Link) bool { return l.Network == name }) {
			return fmt.Errorf("network %s: %s is in it: disconnect it first, or stop it", name, h.endpoints[o].Name())
		}
	}
	return remove(h.definition(name))
}

// A Claim is what one container has or asks for.
type Claim struct {
	Owner       string
	Attachments []network.Attachment
	Ports       []network.Port
	Publishing  bool // it asks for ports now, which needs a network with a way out
}

// Plan gives a claim its addresses and the ports it leaves open. others are the claims of all containers, whether they run or not. Ports
// that are named are checked against what is in use now: two containers may want one port as long as they do not run at once.
func (w *Wiring) Plan(c *Claim, others []Claim) error {
	h, err := w.hold()
	if err != nil {
		return err
	}
	defer h.release()
	taken := map[netip.Addr]string{}
	claims := slices.Clone(others)
	for _, e := range h.endpoints {
		o := Claim{Owner: e.Owner, Ports: e.Ports}
		for _, l := range e.Links {
			o.Attachments = append(o.Attachments, network.Attachment{Addresses: l.Addresses})
		}
		claims = append(claims, o)
	}
	for _, o := range claims {
		for _, a := range o.Attachments {
			for _, addr := range a.Addresses {
				if o.Owner != c.Owner {
					taken[addr] = o.Owner
				}
			}
		}
	}
	out := false
	for i := range c.Attachments {
		a := &c.Attachments[i]
		n, err := h.get(a.Network)
		if err != nil {
			return err
		}
		out = out || !n.Internal
		if a.Addresses, err = n.Plan(c.Owner, a.Addresses, taken); err != nil {
			return err
		}
	}
	if c.Publishing && len(c.Ports) > 0 && !out {
		return errors.New("publishing ports needs a network with a way out: none, or only internal ones, have no place for them")
	}
	open := map[uint16]bool{}
	for _, o := range claims {
		for _, p := range o.Ports {
			open[p.HostPort] = true
		}
	}
	c.Ports, err = network.PlanPorts(c.Ports, h.holders(c.Owner), func(p network.Port) error {
		if chosen := !slices.Contains(c.Ports, p); chosen && open[p.HostPort] {
			return errors.New("wanted by another container")
		}
		return link.PortIsFree(p)
	})
	return err
}

// holders are the others that have ports in use.
func (h *held) holders(owner string) []network.Holder {
	var out []network.Holder
	for _, name := range sortedKeys(h.endpoints) {
		if name != owner {
			out = append(out, network.Holder{Owner: h.endpoints[name].Name(), Ports: h.endpoints[name].Ports})
		}
	}
	return out
}

// portsAreFree checks once more when a container starts, but for ports it has already.
func (h *held) portsAreFree(owner string, ports []network.Port, before *network.Endpoint) error {
	_, err := network.PlanPorts(ports, h.holders(owner), func(p network.Port) error {
		if before != nil && slices.Contains(before.Ports, p) {
			return nil
		}
		return link.PortIsFree(p)
	})
	return err
}
