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
	all := slices.Concat(
		[]verb{runVerb(), createVerb(), updateVerb()}, listVerbs(), lifeVerbs(), []verb{execVerb(), attachVerb(), logsVerb(), eventsVerb(), healthVerb()}, declaredVerbs(), []verb{autoUpdateVerb()}, watchVerbs(), []verb{copyVerb(), diffVerb()},
		[]verb{pullVerb()}, imageVerbs(), []verb{volumeVerb(), secretVerb()}, networkVerbs(), loginVerbs(), aboutVerbs(), innerVerbs(),
	)
	return append(all,
		verb{name: "container", what: "the commands about containers, as docker groups them", verbs: pick(all, "run", "create", "update", "ps", "ls=ps", "list=ps", "inspect", "logs", "exec", "attach", "start", "stop",
			"restart", "kill", "pause", "unpause", "wait", "rm", "rename", "top", "stats", "cp", "diff", "port")},
		verb{name: "image", what: "the commands about images, as docker groups them", verbs: pick(all, "ls=images", "list=images", "inspect", "pull", "push", "rm=rmi", "tag", "load", "save", "prune=gc")})
}

// pick are verbs of a table, by name or as NEW=NAME.
func pick(all []verb, names ...string) (out []verb) {
	for _, n := range names {
		as, name, ok := strings.Cut(n, "=")
		if !ok {
			name = as
		}
		v := all[slices.IndexFunc(all, func(v verb) bool { return v.name == name })]
		v.name = as
		out = append(out, v)
	}
	return out
}

// innerVerbs are for our own use.
func innerVerbs() []verb {
	return []verb{
		{name: "launch", args: "NAME", what: "start a container's workload (for its unit)", hidden: true, min: 1, max: 1, setup: plain(launch)},
		{name: "watch", args: "NAME", what: "have a container's health tried all the time (for its unit)", hidden: true, min: 1, max: 1, setup: plain(watch)},
		{name: "try", args: "NAME", what: "try a container's health once (for its timer)", hidden: true, min: 1, max: 1, setup: plain(try)},
		{name: "ended", args: "NAME [INSTANCE]", what: "note how a container's workload ended (for its unit)", hidden: true, min: 1, max: 2, setup: plain(ended)},
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
