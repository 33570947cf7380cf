// Package flagset reads command lines the way docker and the OCI runtimes take theirs: -d and --detach, --name value and
// --name=value, several short ones in one (-it), and "--" before what only looks like a flag.
//
// The table that parses is the table that --help prints, so the two cannot differ. An unknown flag is an error that names
// it; nothing is guessed. The standard library's flag package has no short names, no combining and stops at the first
// argument, which "rm web -f" needs and "run web -f" must not.
package flagset

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ErrHelp is returned by Parse for -h and --help.
var ErrHelp = errors.New("help wanted")

// UnknownError is the error of a flag that is not in the set.
type UnknownError struct {
	Flag string // with its hyphens
	in   string // the argument, where it holds several flags
}

func (e *UnknownError) Error() string {
	if e.in != "" {
		return fmt.Sprintf("unknown flag %s in %q", e.Flag, e.in)
	}
	return "unknown flag " + e.Flag
}

// A Set is the flags of one command.
type Set struct {
	flags []*entry
}

type entry struct {
	short string
	longs []string
	meta  string // "" for a switch
	usage string
	set   func(string) error
}

// Func adds a flag with a value. names is "long" or "s,long" or "s,long,other"; meta is what --help calls the value.
func (s *Set) Func(names, meta, usage string, set func(string) error) {
	e := &entry{meta: meta, usage: usage, set: set}
	for n := range strings.SplitSeq(names, ",") {
		if len(n) == 1 {
			e.short = n
		} else {
			e.longs = append(e.longs, n)
		}
	}
	s.flags = append(s.flags, e)
}

// String adds a flag that is a text.
func (s *Set) String(p *string, names, meta, usage string) {
	s.Func(names, meta, usage, func(v string) error { *p = v; return nil })
}

// List adds a flag that may be repeated.
func (s *Set) List(p *[]string, names, meta, usage string) {
	s.Func(names, meta, usage, func(v string) error { *p = append(*p, v); return nil })
}

// Bool adds a switch; --name=false clears it.
func (s *Set) Bool(p *bool, names, usage string) {
	s.Func(names, "", usage, func(v string) error {
		b, err := strconv.ParseBool(v)
		if err != nil {
			return errors.New("want true or false")
		}
		*p = b
		return nil
	})
}

// Int adds a flag that is a number of at least low.
func (s *Set) Int(p *int, low int, names, meta, usage string) {
	s.Func(names, meta, usage, func(v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < low {
			return fmt.Errorf("want a number of at least %d", low)
		}
		*p = n
		return nil
	})
}

// Parse sets the flags in args and returns the other arguments. With all, flags may also stand behind arguments;
// otherwise the first argument ends them, for commands whose arguments are another command.
func (s *Set) Parse(args []string, all bool) ([]string, error) {
	var rest []string
	for len(args) > 0 {
		a := args[0]
		if a == "--" {
			return append(rest, args[1:]...), nil
		}
		if len(a) < 2 || a[0] != '-' {
			if !all {
				return append(rest, args...), nil
			}
			rest, args = append(rest, a), args[1:]
			continue
		}
		used, err := s.parseOne(args)
		if err != nil {
			return nil, err
		}
		args = args[used:]
	}
	return rest, nil
}

// parseOne takes the flag at args[0], or the short ones combined there, and returns how many arguments that were.
func (s *Set) parseOne(args []string) (int, error) {
	name, value, given := strings.Cut(args[0], "=")
	if long, ok := strings.CutPrefix(name, "--"); ok {
		if long == "help" {
			return 0, ErrHelp
		}
		e := s.find(func(e *entry) bool { return slices.Contains(e.longs, long) })
		if e == nil {
			return 0, &UnknownError{Flag: name}
		}
		return e.apply(name, value, given, args)
	}
	for i := 1; i < len(name); i++ {
		c := name[i : i+1]
		e := s.find(func(e *entry) bool { return e.short == c })
		switch {
		case e == nil && c == "h":
			return 0, ErrHelp
		case e == nil:
			return 0, &UnknownError{Flag: "-" + c, in: args[0]}
		case e.meta != "" && i+1 < len(name): // -p8080
			return 1, e.call("-"+c, args[0][i+1:])
		case e.meta != "" || i+1 == len(name):
			return e.apply("-"+c, value, given, args)
		}
		if err := e.call("-"+c, "true"); err != nil {
			return 0, err
		}
	}
	return 1, nil
}

func (s *Set) find(match func(*entry) bool) *entry {
	for _, e := range s.flags {
		if match(e) {
			return e
		}
	}
	return nil
}

func (e *entry) apply(name, value string, given bool, args []string) (int, error) {
	switch {
	case given:
		return 1, e.call(name, value)
	case e.meta == "":
		return 1, e.call(name, "true")
	case len(args) < 2:
		return 0, fmt.Errorf("flag %s: missing %s behind it", name, e.meta)
	}
	return 2, e.call(name, args[1])
}

func (e *entry) call(name, value string) error {
	if err := e.set(value); err != nil {
		return fmt.Errorf("flag %s %q: %w", name, value, err)
	}
	return nil
}

// Visit calls f for each flag in the order they were added, with its names as they are typed. meta is "" for a switch.
func (s *Set) Visit(f func(names []string, meta, usage string)) {
	for _, e := range s.flags {
		var names []string
		if e.short != "" {
			names = append(names, "-"+e.short)
		}
		for _, l := range e.longs {
			names = append(names, "--"+l)
		}
		f(names, e.meta, e.usage)
	}
}

// Help returns one line for each flag, in the order they were added.
func (s *Set) Help() string {
	var lines [][2]string
	width := 0
	for _, e := range s.flags {
		left := "    "
		if e.short != "" {
			left = "-" + e.short
			if len(e.longs) > 0 {
				left += ", "
			}
		}
		if len(e.longs) > 0 {
			left += "--" + strings.Join(e.longs, ", --")
		}
		if e.meta != "" {
			left += " " + e.meta
		}
		lines = append(lines, [2]string{left, e.usage})
		width = max(width, len(left))
	}
	width = min(width, 30)
	var b strings.Builder
	for _, l := range lines {
		if len(l[0]) > width {
			fmt.Fprintf(&b, "  %s\n  %*s", l[0], width, "")
		} else {
			fmt.Fprintf(&b, "  %-*s", width, l[0])
		}
		fmt.Fprintf(&b, "  %s\n", strings.ReplaceAll(l[1], "\n", "\n"+strings.Repeat(" ", width+4)))
	}
	return b.String()
}
