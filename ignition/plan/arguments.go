package plan

import (
	"errors"
	"slices"
	"strings"

	"github.com/coreos/ignition/v2/config/v3_6/types"

	"github.com/proa-os/proa/ignition/config"
	"github.com/proa-os/proa/ignition/kargs"
)

// Arguments makes the machine boot with kernel arguments; it comes before everything else, as the machine may start again for it.
type Arguments struct {
	base
	Exist, NotExist []string
}

func (o Arguments) String() string {
	var parts []string
	if len(o.Exist) > 0 {
		parts = append(parts, "boot with kernel arguments "+strings.Join(o.Exist, " "))
	}
	if len(o.NotExist) > 0 {
		parts = append(parts, "boot without kernel arguments "+strings.Join(o.NotExist, " "))
	}
	return strings.Join(parts, ", ")
}

// ArgumentsOf returns the kernel arguments of a plan; without any, the machine is to boot with its own.
func ArgumentsOf(ops []Op) Arguments {
	for _, op := range ops {
		if a, ok := op.(Arguments); ok {
			return a
		}
	}
	return Arguments{}
}

func (b *builder) arguments() {
	k := b.m.Config.KernelArguments
	if len(k.ShouldExist)+len(k.ShouldNotExist) == 0 {
		return
	}
	op := Arguments{base: b.at("kernelArguments"), Exist: b.checkArguments("shouldExist", k.ShouldExist), NotExist: b.checkArguments("shouldNotExist", k.ShouldNotExist)}
	for n, w := range op.NotExist {
		if slices.Contains(op.Exist, w) { // two configs that were merged
			b.refuse(b.at("kernelArguments.shouldNotExist[%d]", n), "kernel argument shall and shall not be there", "it in one of the two lists", w)
		}
	}
	b.add(op)
}

func (b *builder) checkArguments(list string, words []types.KernelArgument) (all []string) {
	for n, w := range words {
		var r *kargs.Refusal
		if err := kargs.Check(string(w)); errors.As(err, &r) {
			b.issues = append(b.issues, config.Issue{Place: b.at("kernelArguments.%s[%d]", list, n).place, Problem: r.What, Expected: r.Expected, Found: r.Found, Next: r.Next})
		}
		all = append(all, string(w))
	}
	return all
}
