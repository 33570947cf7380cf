package wiring

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"

	"github.com/proa-os/proa/runtime/firewall"
	"github.com/proa-os/proa/runtime/link"
	"github.com/proa-os/proa/runtime/network"
)

// settle makes everything but the links themselves follow from the records: first what leads to containers, last what they stand on.
// The service manager, which takes its time, opens the responders' sockets meanwhile. That alone can be done on another thread: a network
// namespace is a thread's.
func (h *held) settle(ctx context.Context) error {
	all := make([]*network.Endpoint, 0, len(h.endpoints))
	for _, name := range sortedKeys(h.endpoints) {
		all = append(all, h.endpoints[name])
	}
	resolvers := make(chan error, 1)
	go func() { resolvers <- h.settleResolvers(ctx, all) }()
	err := errors.Join(h.settleTraffic(all), <-resolvers)
	if err != nil {
		return err
	}
	return h.settleLinks(ctx, all)
}

// settleTraffic is what the kernel forwards, and the names.
func (h *held) settleTraffic(all []*network.Endpoint) error {
	rules := network.RulesOf(h.networks, all)
	settled, err := h.settleForwarding(&rules)
	if err == nil && !settled {
		err = h.settleFirewall(rules)
	}
	if err != nil {
		return err
	}
	return h.settleNames(all)
}

func (h *held) settleFirewall(r network.Rules) error {
	f, err := firewall.Open()
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Apply(r)
}

// settleForwarding switches forwarding on while a network with a way out is in use, and off again if it was off before. It reports whether
// the firewall had to have the rules before, and has them.
func (h *held) settleForwarding(r *network.Rules) (settled bool, err error) {
	var marked link.Forwarding
	file := h.dir("forwarding")
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &marked)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("read %s: %w", file, err)
	}
	if len(r.Bridges) == len(r.Internal) {
		if err := link.SetForwarding(marked, false); err != nil {
			return false, err
		}
		return false, remove(file)
	}
	now, err := link.ReadForwarding()
	if err != nil {
		return false, err
	}
	missing := link.Forwarding{IPv4: !now.IPv4, IPv6: !now.IPv6}
	r.Closed4, r.Closed6 = marked.IPv4 || missing.IPv4, marked.IPv6 || missing.IPv6
	if now.IPv4 && now.IPv6 {
		return false, nil
	}
	if err := write(file, link.Forwarding{IPv4: r.Closed4, IPv6: r.Closed6}, 0o600); err != nil {
		return false, err
	}
	// The rules that close what we open come first.
	if err := h.settleFirewall(*r); err != nil {
		return false, err
	}
	return true, link.SetForwarding(missing, true)
}

func (h *held) settleNames(all []*network.Endpoint) error {
	file := h.dir(NamesFile)
	if len(all) == 0 {
		return remove(file)
	}
	return write(file, network.NamesOf(h.networks, all), 0o644)
}

// settleLinks removes links nobody has, then responders and bridges of networks nobody is in.
func (h *held) settleLinks(ctx context.Context, all []*network.Endpoint) error {
	have, err := h.machine.List()
	if err != nil {
		return err
	}
	veths, bridges := map[string]bool{}, map[string]bool{}
	for _, e := range all {
		for _, l := range e.Links {
			veths[l.Host], bridges[l.Bridge] = true, true
		}
	}
	for name := range have.Veths {
		if !veths[name] {
			if err := h.machine.Remove(name); err != nil {
				return err
			}
		}
	}
	for name := range have.Bridges {
		if !bridges[name] {
			if err := h.stopResolver(ctx, name); err != nil {
				return err
			}
			if err := h.machine.Remove(name); err != nil {
				return err
			}
		}
	}
	// Those whose bridge somebody else has removed.
	started, err := os.ReadDir(h.dir("resolvers"))
	if err != nil {
		return err
	}
	for _, s := range started {
		if !bridges[s.Name()] {
			if err := h.stopResolver(ctx, s.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

// settleResolvers starts the sockets at which names are answered. A container works without names, if not well: not to start it would be
// worse.
func (h *held) settleResolvers(ctx context.Context, all []*network.Endpoint) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, e := range all {
		for _, l := range e.Links {
			n := h.networks[l.Network]
			mark := h.dir("resolvers", l.Bridge)
			if _, err := os.Lstat(mark); err == nil || n == nil || n.DisableDNS || h.Sockets == nil {
				continue
			}
			if err := os.WriteFile(mark, nil, 0o600); err != nil {
				return err
			}
			var gateways []netip.Addr
			for _, s := range n.Subnets {
				gateways = append(gateways, s.Gateway)
			}
			if err := h.Sockets.Listen(ctx, SocketUnit(l.Bridge), l.Bridge, gateways); err != nil {
				h.warn(fmt.Errorf("names in the network %s are not answered: %w", n.Name, err))
				if err := remove(mark); err != nil { // the next container tries again
					return err
				}
			}
		}
	}
	return nil
}

// stopResolver stops the socket, and with it the service that requires it; the mark goes last.
func (h *held) stopResolver(ctx context.Context, bridge string) error {
	mark := h.dir("resolvers", bridge)
	if _, err := os.Lstat(mark); errors.Is(err, fs.ErrNotExist) || h.Sockets == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := h.Sockets.Stop(ctx, SocketUnit(bridge)); err != nil {
		h.warn(err) // the machine is going down, and systemd stops them itself
	}
	return remove(mark)
}

func (h *held) warn(err error) {
	if h.Warn != nil {
		h.Warn(err)
	}
}
