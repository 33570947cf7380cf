package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/network"
	"github.com/proa-os/proa/runtime/run"
	"github.com/proa-os/proa/runtime/store"
)

// networkVerbs are about networks, and about ports of containers in them.
func networkVerbs() []verb {
	group := []verb{
		networkCreateVerb(),
		{name: "ls", what: "list networks", json: true, setup: plain(networkList)},
		{name: "inspect", args: "NETWORK...", what: "print all about networks as JSON", min: 1, max: -1, lister: "networks", setup: plain(networkInspect)},
		{name: "rm", args: "NETWORK...", what: "remove networks that no container is in", min: 1, max: -1, lister: "networks", setup: func(s *flagset.Set) action {
			var force bool
			s.Bool(&force, "f,force", "that there is none is no error")
			return func(ctx context.Context, c *call) error { return networkRemove(ctx, c, force) }
		}},
		{name: "prune", what: "remove all networks that no container is in", setup: func(s *flagset.Set) action {
			var force bool
			s.Bool(&force, "f,force", "accepted: nobody is asked")
			return networkPrune
		}},
		{name: "connect", args: "NETWORK CONTAINER", what: "put a container into a network, while it runs or for its next start", min: 2, max: 2, lister: "networks",
			setup: func(s *flagset.Set) action {
				var a network.Attachment
				s.Func("ip,ip6", "ADDRESS", "its address there", addressFlag(&a.Addresses))
				s.List(&a.Aliases, "alias", "NAME", "a further name there")
				return func(ctx context.Context, c *call) error { return networkConnect(ctx, c, a) }
			}},
		{name: "disconnect", args: "NETWORK CONTAINER", what: "take a container out of a network, while it runs too", min: 2, max: 2, lister: "networks", setup: func(s *flagset.Set) action {
			var force bool
			s.Bool(&force, "f,force", "accepted: it is never refused")
			return networkDisconnect
		}},
		{name: "reload", what: "make links, firewall and names anew if something has changed them", setup: plain(func(ctx context.Context, c *call) error { return c.wires().Reload(ctx) }),
			more: "What flushes the whole ruleset of nftables takes containers' ports and masquerading with it; this brings them back. So does each start and stop of a container."},
		{name: "release", args: "NAME", what: "detach a container that has ended (for its unit)", hidden: true, min: 1, max: 1,
			setup: plain(func(ctx context.Context, c *call) error { return c.wires().Release(ctx, c.args[0]) })},
		{name: "namespace", what: "network namespaces without a process (for pods)", hidden: true, verbs: namespaceVerbs()},
	}
	return []verb{
		{name: "network", what: "networks of containers", verbs: group},
		{name: "port", args: "CONTAINER", what: "list or change the ports of the machine that lead to a container", min: 1, max: 1, json: true, lister: "containers",
			more:  "A change takes effect at once, for a container that runs; nothing restarts, and no other port is touched.",
			setup: portSetup},
	}
}

// networkView is a network for ls and inspect.
type networkView struct {
	*network.Network
	Containers []networkMember `json:"containers"`
}

type networkMember struct {
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses"`
	Attached  bool         `json:"attached"` // now
}

// networkViews joins definitions, containers and who is attached now.
func (c *call) networkViews() ([]networkView, error) {
	nets, err := c.wires().List()
	if err != nil {
		return nil, err
	}
	endpoints, err := c.wires().Endpoints()
	if err != nil {
		return nil, err
	}
	containers, err := c.store.Containers()
	if err != nil {
		return nil, err
	}
	out := []networkView{}
	for _, name := range slices.Sorted(maps.Keys(nets)) {
		v := networkView{Network: nets[name], Containers: []networkMember{}}
		for _, k := range containers {
			for _, a := range k.Networks {
				if a.Network == name {
					v.Containers = append(v.Containers, networkMember{k.Name, a.Addresses, endpoints[k.Name] != nil})
				}
			}
		}
		for _, o := range slices.Sorted(maps.Keys(endpoints)) {
			for _, l := range endpoints[o].Links {
				if l.Network == name && strings.HasPrefix(o, network.NamespacePrefix) {
					v.Containers = append(v.Containers, networkMember{o, l.Addresses, true})
				}
			}
		}
		out = append(out, v)
	}
	return out, nil
}

func (c *call) networkNames() ([]string, error) {
	nets, err := c.wires().List()
	return slices.Sorted(maps.Keys(nets)), err
}

func networkList(_ context.Context, c *call) error {
	vs, err := c.networkViews()
	if err != nil {
		return err
	}
	if c.asJSON {
		return c.json(vs)
	}
	return c.table("NETWORK\tINTERFACE\tSUBNETS\tCONTAINERS", func(w io.Writer) {
		for _, v := range vs {
			var subnets []string
			for _, s := range v.Subnets {
				subnets = append(subnets, s.Prefix.String())
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\n", v.Name, v.Bridge, strings.Join(subnets, " "), len(v.Containers))
		}
	})
}

func networkInspect(_ context.Context, c *call) error {
	vs, err := c.networkViews()
	if err != nil {
		return err
	}
	out := []networkView{}
	for _, name := range c.args {
		i := slices.IndexFunc(vs, func(v networkView) bool { return v.Name == name })
		if i < 0 {
			return c.suggest(fmt.Errorf("network %s: %w", name, network.ErrNoNetwork), name, "networks")
		}
		out = append(out, vs[i])
	}
	return c.json(out)
}

// networkUser is the first container that a network is not to be taken away from. A declared one is made anew when it starts.
func (c *call) networkUser(name string) (string, error) {
	all, err := c.store.Containers()
	if err != nil {
		return "", err
	}
	for _, k := range all {
		if k.Unit == "" && slices.ContainsFunc(k.Networks, func(a network.Attachment) bool { return a.Network == name }) {
			return k.Name, nil
		}
	}
	return "", nil
}

func networkRemove(ctx context.Context, c *call, force bool) error {
	unlock, err := c.store.Lock() // nobody makes a container in it meanwhile
	if err != nil {
		return err
	}
	defer unlock()
	var errs []error
	for _, name := range c.args {
		user, err := c.networkUser(name)
		if err == nil && user != "" {
			err = fmt.Errorf("network %s: the container %s is in it: containerctl network disconnect %s %s", name, user, name, user)
		}
		if err == nil {
			err = c.wires().Remove(ctx, name)
		}
		switch {
		case force && errors.Is(err, network.ErrNoNetwork):
		case errors.Is(err, network.ErrNoNetwork):
			errs = append(errs, c.suggest(err, name, "networks"))
		case err != nil:
			errs = append(errs, err)
		default:
			fmt.Fprintln(c.Out, name)
		}
	}
	return errors.Join(errs...)
}

func networkPrune(ctx context.Context, c *call) error {
	unlock, err := c.store.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	vs, err := c.networkViews()
	if err != nil {
		return err
	}
	for _, v := range vs {
		if len(v.Containers) == 0 && v.Name != network.Default {
			if err := c.wires().Remove(ctx, v.Name); err != nil {
				return err
			}
			fmt.Fprintln(c.Out, v.Name)
		}
	}
	return nil
}

// changeNetwork changes what a container asks for, and what it has if it runs.
func (c *call) changeNetwork(ctx context.Context, name string, change func(*store.Container) error) error {
	unlock, err := c.store.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	k, err := c.container(name)
	if err != nil {
		return err
	}
	if k.Network != network.Default {
		return fmt.Errorf("%s was made with --network %s: it has no network of its own", k.Name, k.Network)
	}
	if err := change(k); err != nil {
		return err
	}
	ns, err := c.namespaceOf(k.Name, "net")
	switch {
	case err == nil:
		defer ns.Close()
		if err := c.wires().Change(ctx, k.Name, ns, wanted(k)); err != nil {
			return err
		}
		// The files are mounted in the container: it sees what is written into them. Its resolver may be in another network now.
		if err := c.writeNamesOf(k); err != nil {
			return err
		}
	case !errors.Is(err, run.ErrNotExist):
		return err
	}
	return c.store.SaveContainer(k)
}

func networkConnect(ctx context.Context, c *call, a network.Attachment) error {
	a.Network = c.args[0]
	if err := checkAliases(a.Aliases); err != nil {
		return err
	}
	return c.changeNetwork(ctx, c.args[1], func(k *store.Container) error {
		if slices.ContainsFunc(k.Networks, func(have network.Attachment) bool { return have.Network == a.Network }) {
			return fmt.Errorf("%s is in the network %s already", k.Name, a.Network)
		}
		k.Networks = append(k.Networks, a)
		return c.planNetwork(k, false)
	})
}

func networkDisconnect(ctx context.Context, c *call) error {
	name := c.args[0]
	return c.changeNetwork(ctx, c.args[1], func(k *store.Container) error {
		left := slices.DeleteFunc(slices.Clone(k.Networks), func(have network.Attachment) bool { return have.Network == name })
		if len(left) == len(k.Networks) {
			return fmt.Errorf("%s is not in the network %s", k.Name, name)
		}
		k.Networks = left
		return nil
	})
}

// portSetup is the setup of port.
func portSetup(s *flagset.Set) action {
	var add, remove []network.Port
	parse := func(list *[]network.Port) func(string) error {
		return func(v string) error {
			ports, err := network.ParsePublish(v)
			*list = append(*list, ports...)
			return err
		}
	}
	s.Func("add,publish-add", "[IP:][HOST:]PORT[/udp]", "publish one more, as run -p does", parse(&add))
	s.Func("remove,publish-rm", "[IP:]HOST:PORT[/udp]", "publish it no more", parse(&remove))
	return func(ctx context.Context, c *call) error {
		if len(add)+len(remove) > 0 {
			err := c.changeNetwork(ctx, c.args[0], func(k *store.Container) error {
				for _, p := range remove {
					i := slices.Index(k.Publish, p)
					if i < 0 {
						return fmt.Errorf("%s does not publish %s: it has %s", k.Name, p, portList(k.Publish))
					}
					k.Publish = slices.Delete(k.Publish, i, i+1)
				}
				k.Publish = append(k.Publish, add...)
				return c.planNetwork(k, len(add) > 0)
			})
			if err != nil {
				return err
			}
		}
		k, err := c.container(c.args[0])
		if err != nil {
			return err
		}
		if c.asJSON {
			return c.json(append([]network.Port{}, k.Publish...))
		}
		for _, p := range k.Publish {
			fmt.Fprintf(c.Out, "%d/%s -> %s\n", p.Port, p.Protocol, p.Host())
		}
		return nil
	}
}

// portList is ports in one line for ps, neighbours as ranges.
func portList(ports []network.Port) string {
	var out []string
	for i := 0; i < len(ports); {
		n := 1
		for i+n < len(ports) && follows(ports[i], ports[i+n], n) {
			n++
		}
		p := ports[i]
		text := p.String()
		if n > 1 {
			text = fmt.Sprintf("%s-%d->%d-%d/%s", p.Host(), int(p.HostPort)+n-1, p.Port, int(p.Port)+n-1, p.Protocol)
		}
		out = append(out, text)
		i += n
	}
	return strings.Join(out, ", ")
}

func follows(p, q network.Port, n int) bool {
	return q.HostIP == p.HostIP && q.Protocol == p.Protocol && int(q.HostPort) == int(p.HostPort)+n && int(q.Port) == int(p.Port)+n
}
