package ctl

import (
	"fmt"
	"strings"

	"github.com/proa-os/proa/runtime/flagset"
)

// Flags and lists that volumes, secrets and networks have in common.

// labelFlag adds -l, --label.
func labelFlag(s *flagset.Set, of string, labels *map[string]string) {
	s.Func("l,label", "KEY[=VALUE]", "label of the "+of, func(v string) error {
		k, value, _ := strings.Cut(v, "=")
		if *labels == nil {
			*labels = make(map[string]string)
		}
		(*labels)[k] = value
		return nil
	})
}

// driverFlag adds -d, --driver, which others' programs give: there is only one.
func driverFlag(s *flagset.Set, only string) {
	s.Func("d,driver", only, "the only one", func(v string) error {
		if v != only {
			return fmt.Errorf("want %s", only)
		}
		return nil
	})
}

// namesOf are the names of a list, if there is one.
func namesOf[T any](list []T, err error, name func(T) string) (out []string, _ error) {
	for _, v := range list {
		out = append(out, name(v))
	}
	return out, err
}

// printNames prints them, one a line.
func (c *call) printNames(names []string) error {
	for _, n := range names {
		if _, err := fmt.Fprintln(c.Out, n); err != nil {
			return err
		}
	}
	return nil
}
