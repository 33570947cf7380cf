package ctl

import (
	"context"
	"fmt"

	"github.com/proa-os/proa/internal/command"
	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/network"
	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/wiring"
)

// namespaceVerbs make namespaces that hold without a process: a pod's unit makes one, and its containers join it (run --network
// ns:/run/proa/netns/NAME).
func namespaceVerbs() []verb {
	return []verb{
		{name: "up", args: "NAME", what: "make a namespace, or change the one there is, and print its path", min: 1, max: 1, setup: func(s *flagset.Set) action {
			var k store.Container
			var net networkFlags
			net.flags(s, &k)
			return func(ctx context.Context, c *call) error {
				k.Name = c.args[0]
				return c.namespaceUp(ctx, &k, &net)
			}
		}},
		{name: "down", args: "NAME", what: "let a namespace go", min: 1, max: 1, setup: plain(func(ctx context.Context, c *call) error {
			if err := store.CheckName(c.args[0]); err != nil {
				return err
			}
			return c.wires().Release(ctx, network.NamespacePrefix+c.args[0])
		})},
	}
}

func (c *call) namespaceUp(ctx context.Context, k *store.Container, net *networkFlags) error {
	if err := store.CheckName(k.Name); err != nil {
		return err
	}
	if err := net.check(k); err != nil {
		return command.Wrong("up: %w", err)
	}
	if k.Network != network.Default && k.Network != "none" {
		return command.Wrong("up: --network %s: a namespace of its own is in networks, or in none", k.Network)
	}
	unlock, err := c.store.Lock() // as for a container: nobody else takes the address meanwhile
	if err != nil {
		return err
	}
	defer unlock()
	others, err := c.claims()
	if err != nil {
		return err
	}
	mine := wiring.Claim{Owner: network.NamespacePrefix + k.Name, Attachments: k.Networks, Ports: k.Publish, Publishing: true}
	if k.Network == network.Default {
		if err := c.wires().Plan(&mine, others); err != nil {
			return err
		}
	}
	path, err := c.wires().Up(ctx, k.Name, wiring.Wanted{Attachments: mine.Attachments, Ports: mine.Ports, DNS: k.DNS})
	if err != nil {
		return err
	}
	fmt.Fprintln(c.Out, path)
	return nil
}
