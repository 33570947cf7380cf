package ctl

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/network"
	"github.com/proa-os/proa/runtime/store"
)

// networkFlags are the flags of run that say how a container is reached.
type networkFlags struct {
	addresses []netip.Addr
	aliases   []string
	all       bool           // publish what is exposed
	exposed   []network.Port // beside what the image says
}

func (n *networkFlags) flags(s *flagset.Set, c *store.Container) {
	s.Func("network,net", "NETWORK", "a network's name (default: bridge), NAME:ip=ADDRESS,alias=NAME; may be repeated\nhost: the machine's; none: only loopback; container:NAME, ns:PATH: that of another",
		func(v string) error { return addNetwork(c, v) })
	s.Func("p,publish", "[IP:][HOST:]PORT[/udp]", "lead a port, or a range, of the machine to the container", func(v string) error {
		ports, err := network.ParsePublish(v)
		c.Publish = append(c.Publish, ports...)
		return err
	})
	s.Bool(&n.all, "P,publish-all", "publish all ports that the image or --expose names, each as a free port of the machine (containerctl port tells)")
	s.Func("expose", "PORT[/udp]", "a port, or a range, for -P: -p publishes without", func(v string) error {
		ports, err := parseExposed(v)
		n.exposed = append(n.exposed, ports...)
		return err
	})
	s.Func("ip,ip6", "ADDRESS", "its address in the network", addressFlag(&n.addresses))
	s.List(&n.aliases, "network-alias,net-alias", "NAME", "a further name in its networks")
	nameFlags(s, c)
}

// nameFlags are about names of others.
func nameFlags(s *flagset.Set, c *store.Container) {
	s.Func("dns", "ADDRESS", "whom to ask for names that are not containers'", addressFlag(&c.DNS))
	s.List(&c.DNSSearch, "dns-search", "DOMAIN", "search domain; . for none")
	s.List(&c.DNSOptions, "dns-option,dns-opt", "OPTION", "option of resolv.conf(5)")
	s.Func("add-host", "NAME:ADDRESS", "line of /etc/hosts; host-gateway stands for the machine", func(v string) error {
		name, addr, ok := strings.Cut(v, ":")
		if i := strings.IndexByte(v, '='); i >= 0 && (!ok || i < len(name)) {
			name, addr, ok = strings.Cut(v, "=")
		}
		if _, err := netip.ParseAddr(strings.Trim(addr, "[]")); !ok || name == "" || strings.ContainsAny(name, " \t\n#") || err != nil && addr != "host-gateway" {
			return errors.New("want NAME:ADDRESS or NAME:host-gateway")
		}
		c.Hosts = append(c.Hosts, name+":"+strings.Trim(addr, "[]"))
		return nil
	})
}

// addressFlag appends an IP address to a list.
func addressFlag(list *[]netip.Addr) func(string) error {
	return func(v string) error {
		a, err := netip.ParseAddr(v)
		if err != nil || a.Zone() != "" {
			return errors.New("want an IP address")
		}
		*list = append(*list, a.Unmap())
		return nil
	}
}

// addNetwork reads one --network: podman's NAME[:OPTION=VALUE,...] or docker's name=NAME,OPTION=VALUE,...
func addNetwork(c *store.Container, v string) error {
	mode, _, _ := strings.Cut(v, ":")
	switch {
	case mode == "container" || mode == "ns" || v == "host" || v == "none":
		if c.Network != "" {
			return fmt.Errorf("does not go together with --network %s", c.Network)
		}
		if rest := strings.TrimPrefix(v, mode+":"); mode == "container" && store.CheckName(rest) != nil || mode == "ns" && !filepath.IsAbs(rest) {
			return errors.New("want container:NAME or ns:PATH")
		}
		c.Network = v
		return nil
	case c.Network != "" && c.Network != network.Default:
		return fmt.Errorf("does not go together with --network %s", c.Network)
	}
	a, err := parseAttachment(v)
	if err != nil {
		return err
	}
	for _, have := range c.Networks {
		if have.Network == a.Network {
			return errors.New("given twice")
		}
	}
	c.Network, c.Networks = network.Default, append(c.Networks, a)
	return nil
}

func parseAttachment(v string) (network.Attachment, error) {
	var a network.Attachment
	name, options, _ := strings.Cut(v, ":")
	if strings.Contains(name, "=") {
		name, options = "", v
	}
	a.Network = name
	for o := range strings.SplitSeq(options, ",") {
		key, value, _ := strings.Cut(o, "=")
		switch key {
		case "":
		case "name":
			a.Network = value
		case "alias":
			a.Aliases = append(a.Aliases, value)
		case "ip", "ip6":
			if err := addressFlag(&a.Addresses)(value); err != nil {
				return a, fmt.Errorf("%s: %w", o, err)
			}
		default:
			return a, fmt.Errorf("option %q: want ip, ip6 or alias", key)
		}
	}
	if a.Network == "default" || a.Network == "private" {
		a.Network = network.Default
	}
	if err := checkAliases(a.Aliases); err != nil {
		return a, err
	}
	return a, network.CheckName(a.Network)
}

func checkAliases(names []string) error {
	for _, n := range names {
		if err := store.CheckName(n); err != nil {
			return fmt.Errorf("alias: %w", err)
		}
	}
	return nil
}

// check settles what flags mean together.
func (n *networkFlags) check(c *store.Container) error {
	if c.Network == "" {
		c.Network, c.Networks = network.Default, []network.Attachment{{Network: network.Default}}
	}
	if err := checkAliases(n.aliases); err != nil {
		return err
	}
	if c.Network != network.Default {
		switch {
		case len(c.Publish) > 0 || n.all:
			return fmt.Errorf("-p and -P do not go together with --network %s", c.Network)
		case len(n.addresses)+len(n.aliases) > 0:
			return fmt.Errorf("--ip and --network-alias do not go together with --network %s", c.Network)
		}
		return nil
	}
	if len(n.addresses) > 0 {
		if len(c.Networks) > 1 {
			return errors.New("--ip with several networks: say --network NAME:ip=ADDRESS")
		}
		c.Networks[0].Addresses = append(c.Networks[0].Addresses, n.addresses...)
	}
	for i := range c.Networks {
		c.Networks[i].Aliases = append(c.Networks[i].Aliases, n.aliases...)
	}
	return nil
}

// parseExposed reads PORT[-PORT][/tcp|udp].
func parseExposed(v string) ([]network.Port, error) {
	if strings.Contains(v, ":") {
		return nil, errors.New("want PORT[-PORT][/tcp|udp]")
	}
	return network.ParsePublish(v)
}

// mostExposed is how many ports an image may name for -P.
const mostExposed = 1024

// publishExposed adds to what is published what the image exposes, where -P asks for it. Free ports of the machine are chosen later.
func (n *networkFlags) publishExposed(c *store.Container, image map[string]struct{}) error {
	if !n.all {
		return nil
	}
	exposed := slices.Clone(n.exposed)
	for _, text := range slices.Sorted(maps.Keys(image)) {
		ports, err := parseExposed(text)
		if err != nil {
			return fmt.Errorf("-P: the image %s exposes %.40q: %w: publish its ports with -p", c.Image, text, err)
		}
		exposed = append(exposed, ports...)
		if len(exposed) > mostExposed {
			return fmt.Errorf("-P: the image %s exposes more than %d ports: publish those you need with -p", c.Image, mostExposed)
		}
	}
	published := slices.Clone(c.Publish)
	for _, p := range exposed {
		if !slices.ContainsFunc(published, func(have network.Port) bool { return have.Port == p.Port && have.Protocol == p.Protocol }) {
			published = append(published, p)
		}
	}
	c.Publish = published
	return nil
}
