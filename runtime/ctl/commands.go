package ctl

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/proa-os/proa/runtime/flagset"
)

// verbs is the whole table.
func (e *Env) verbs() []verb {
	return slices.Concat(
		[]verb{runVerb()}, listVerbs(), lifeVerbs(), []verb{execVerb(), logsVerb(), healthVerb()}, declaredVerbs(), []verb{autoUpdateVerb()},
		[]verb{pullVerb()}, imageVerbs(), []verb{volumeVerb(), secretVerb()}, networkVerbs(), loginVerbs(), aboutVerbs(), innerVerbs(),
	)
}

// aboutVerbs tell of the program itself.
func aboutVerbs() []verb {
	return []verb{
		{name: "version", what: "print the release of the OS", closed: true, setup: plain(func(_ context.Context, c *call) error {
			fmt.Fprintf(c.Out, "containerctl (%s)\n", c.release())
			return nil
		})},
	}
}

// innerVerbs are for our own use.
func innerVerbs() []verb {
	return []verb{
		{name: "launch", args: "NAME", what: "start a container's workload (for its unit)", hidden: true, min: 1, max: 1,
			setup: plain(func(ctx context.Context, c *call) error { return c.launch(ctx, true) })},
		{name: "foreground", args: "NAME", what: "run a container's workload (for run without -d)", hidden: true, min: 1, max: 1,
			setup: plain(func(ctx context.Context, c *call) error { return c.launch(ctx, false) })},
		{name: "fetch", what: "talk to registries for pull and push, over standard input and output", hidden: true, closed: true,
			setup: func(s *flagset.Set) action {
				var push bool
				s.Bool(&push, "push", "the directory on descriptor 3 is to be pushed")
				return func(ctx context.Context, c *call) error { return c.fetch(ctx, push) }
			}},
		{name: "dns", what: "answer for names in a network (for proa-dns@.service)", hidden: true, closed: true, setup: plain(answerNames)},
		{name: "words", args: "KIND", what: "list names, for completion", hidden: true, min: 1, max: 1,
			setup: plain(func(_ context.Context, c *call) error {
				words, err := c.words(c.args[0])
				fmt.Fprintln(c.Out, strings.Join(words, "\n"))
				return err
			})},
	}
}
