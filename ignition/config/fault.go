package config

import (
	"errors"
	"strings"
)

// A Fault is an error of what a config refers to that knows its parts: a server that does not answer, a hash that is another one.
type Fault interface {
	error
	Fault() Issue // without a place
}

// Of is the issue that err makes of what stands at a place; next is what to do where err does not know better. The problem is what was
// being done, and what err says.
func Of(at Place, doing string, err error, next string) Issue {
	i := Issue{Place: at, Problem: err.Error(), Next: next}
	var f Fault
	if errors.As(err, &f) {
		known := f.Fault()
		i.Expected, i.Found = known.Expected, known.Found
		if known.Next != "" {
			i.Next = known.Next
		}
		if around, last := strings.CutSuffix(i.Problem, f.Error()); last { // its parts say the same on lines of their own
			i.Problem = around + known.Problem
		}
	}
	if doing != "" {
		i.Problem = doing + ": " + i.Problem
	}
	return i
}
